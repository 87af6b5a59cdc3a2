//! The initramfs builder on made-up module trees, checked by the tools of others.

mod choice;
mod fixture;
mod pack;
