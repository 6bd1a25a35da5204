"""Raw records and other tools' traces -> the schema."""
