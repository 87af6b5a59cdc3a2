//! UDF (ECMA-167, OSTA 1.02 to 2.50) volumes, read only.
