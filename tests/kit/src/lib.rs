//! Builders and comparisons that the tests share.
