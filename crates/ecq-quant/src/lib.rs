//! ecq-quant
