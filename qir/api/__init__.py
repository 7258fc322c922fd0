"""What a user calls. Frameworks, frontends, passes and backends are imported on use."""
