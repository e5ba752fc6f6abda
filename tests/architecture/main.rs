//! Holds the repository to its own map: the layers of `lib.rs`, rooms without circles, one meaning a type name, the
//! rules' pages, and the walks that `src/DESIGN.md` describes. It reads sources and pages, and runs nothing of them.

mod files;
mod imports;
mod names;
mod pages;
mod rooms;
mod sources;
mod walks;
