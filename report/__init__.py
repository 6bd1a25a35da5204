"""Pictures of traces and results; reads only schemas."""
