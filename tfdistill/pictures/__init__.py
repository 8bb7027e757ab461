"""Pictures of single studies: records in, SVG text out."""
