"""How a trace becomes a program: read, matched, grown, scripted, emitted. Entered through `lower.lower`."""
