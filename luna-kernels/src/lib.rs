//! CPU kernels of Luna.
