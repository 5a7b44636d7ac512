"""Bytes on disks and in object stores: records, digests, sealed texts. Knows nothing of training."""
