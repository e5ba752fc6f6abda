//! SQL text with bound values that the connection may keep prepared.
//!
//! Diesel's own `sql_query` is prepared anew at every run, because its text might be built from
//! values. These texts are constants, or put together from a bounded number of fixed pieces, so they
//! are kept: a round trip saved on every miss and every mutation.

use std::{borrow::Cow, marker::PhantomData};

use diesel::{
    QueryResult,
    pg::Pg,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    serialize::ToSql,
    sql_types::{HasSqlType, Untyped},
};

/// Holds a statement and its values, `$1` first.
pub struct Statement<'v> {
    sql: Cow<'static, str>,
    values: Vec<Box<dyn QueryFragment<Pg> + Send + 'v>>,
}

/// Starts a statement without values. Its text must not depend on values: every text stays prepared.
pub fn statement<'v>(sql: impl Into<Cow<'static, str>>) -> Statement<'v> {
    Statement { sql: sql.into(), values: Vec::new() }
}

struct BoundValue<St, U> {
    value: U,
    sql_type: PhantomData<St>,
}

impl<'v> Statement<'v> {
    /// Binds the next value.
    #[must_use]
    pub fn bind<St, U>(mut self, value: U) -> Self
    where
        Pg: HasSqlType<St>,
        U: ToSql<St, Pg> + Send + 'v,
        St: Send + 'v,
    {
        self.values.push(Box::new(BoundValue::<St, U> { value, sql_type: PhantomData }));
        self
    }
}

impl<St, U> QueryFragment<Pg> for BoundValue<St, U>
where
    Pg: HasSqlType<St>,
    U: ToSql<St, Pg>,
{
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        pass.push_bind_param_value_only(&self.value)
    }
}

impl QueryFragment<Pg> for Statement<'_> {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        pass.push_sql(&self.sql);
        self.values.iter().try_for_each(|value| value.walk_ast(pass.reborrow()))
    }
}

impl QueryId for Statement<'_> {
    type QueryId = ();
    // Prepared statements are distinguished by their text.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement<'_> {
    type SqlType = Untyped;
}
