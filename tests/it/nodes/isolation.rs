//! One tenant that floods does not slow another down.
