"""Read and write files on disk, S3, HTTP and the Hugging Face Hub."""
