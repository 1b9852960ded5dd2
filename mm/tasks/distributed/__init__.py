"""What tasks need where several processes train one model: gathering of vectors, and sharded weights."""
