//! ecq-convert
