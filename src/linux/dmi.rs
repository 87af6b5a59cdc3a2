//! What the firmware says of the machine.
