//! Has PostgreSQL walk one index, whatever its statistics say of the rows.
//!
//! Of rows that equal some values in an index's first columns, in the order of its last: asked for by equality, the
//! planner knows that their order is the last column's alone. Another index may have that order too (a primary key),
//! and where the rows are a good part of the table, it walks that one and filters, past any number of others' rows. So
//! they are asked for by a range of all the columns, in the order of all of them: just one index has both.

/// Selects rows by the columns of an index, in its order or the reverse.
pub struct IndexWalk<'a> {
    /// The table's alias.
    pub alias: &'a str,
    /// The first columns, each with what it equals: a placeholder, or a column of another table.
    pub equal: &'a [(&'a str, String)],
    /// The last column.
    pub last: &'a str,
    /// The placeholder of what the rows come after in the walk's order; `None` for the first.
    pub after: Option<String>,
    /// Whether the last column's greatest comes first.
    pub descending: bool,
}

// === impl IndexWalk ===

impl IndexWalk<'_> {
    /// Returns the condition.
    pub fn condition(&self) -> String {
        let (beyond, from, to) = if self.descending { ("<", "<=", ">=") } else { (">", ">=", "<=") };
        let columns = self.equal.iter().map(|(column, _)| self.column(column)).collect::<Vec<_>>();
        let values = self.equal.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>();
        let start = match &self.after {
            None => compare(&columns, from, &values),
            Some(after) => {
                let columns = [&columns[..], &[self.column(self.last)]].concat();
                compare(&columns, beyond, &[&values[..], &[after]].concat())
            }
        };
        format!("{start} AND {}", compare(&columns, to, &values))
    }

    /// Returns the order, with its ORDER BY.
    pub fn order(&self) -> String {
        let columns = self.equal.iter().map(|(column, _)| *column).chain([self.last]);
        let direction = if self.descending { " DESC" } else { "" };
        let columns = columns.map(|column| format!("{}{direction}", self.column(column))).collect::<Vec<_>>();
        format!("ORDER BY {}", columns.join(", "))
    }

    fn column(&self, name: &str) -> String {
        format!("{}.{name}", self.alias)
    }
}

fn compare(columns: &[String], operator: &str, values: &[&str]) -> String {
    format!("({}) {operator} ({})", columns.join(", "), values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_is_a_range_of_all_the_columns_in_their_order() {
        let equal = [("account_id", "$1".to_owned()), ("team_id", "m.team_id".to_owned())];
        let mut walk = IndexWalk { alias: "t", equal: &equal, last: "key_id", after: None, descending: true };
        let to = "(t.account_id, t.team_id) >= ($1, m.team_id)";
        assert_eq!(walk.condition(), format!("(t.account_id, t.team_id) <= ($1, m.team_id) AND {to}"));
        assert_eq!(walk.order(), "ORDER BY t.account_id DESC, t.team_id DESC, t.key_id DESC");
        walk.after = Some("$3".into());
        let start = "(t.account_id, t.team_id, t.key_id) < ($1, m.team_id, $3)";
        assert_eq!(walk.condition(), format!("{start} AND {to}"));
        walk.descending = false;
        assert_eq!(walk.order(), "ORDER BY t.account_id, t.team_id, t.key_id");
        let start = "(t.account_id, t.team_id, t.key_id) > ($1, m.team_id, $3)";
        assert_eq!(walk.condition(), format!("{start} AND (t.account_id, t.team_id) <= ($1, m.team_id)"));
    }
}
