//! layerstore-unpack
