//! Millrace developer command.
