//! The account files: passwd, shadow, group, gshadow, as lines.
