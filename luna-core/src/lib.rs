//! Luna.
