//! ISO 9660 (ECMA-119) volumes, read only.
