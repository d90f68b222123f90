//! layerstore-gc
