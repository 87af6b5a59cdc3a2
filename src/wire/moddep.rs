//! The kernel's module index: modules.dep, modules.alias, modules.builtin.
