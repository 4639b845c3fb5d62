//! The project's own dialect: `{"tool_uses":[{"recipient_name":"functions.NAME","parameters":{…}}]}`.
