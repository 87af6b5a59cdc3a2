//! The provisioning document `ovf-env.xml`.
