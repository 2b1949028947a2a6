//! ecq-format
