"""The store's own small CRD and DTR service: rules are PlanDefinitions, forms are Questionnaires, both kept in it."""
