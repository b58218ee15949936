"""Results for people and programs: JSON documents, figures, pages."""
