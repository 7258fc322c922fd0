"""Pages and pictures: of graphs, of analyses, of certificates."""
