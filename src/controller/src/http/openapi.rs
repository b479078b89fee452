//! The OpenAPI document, made from the route table and the types of `model`.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use speediso_model::api::ErrorBody;

use super::auth::Audience;
use super::routes;

/// # Panics
/// Never: schemas are JSON.
#[must_use]
pub fn document() -> Value {
    let mut generator = SchemaSettings::openapi3().into_generator();
    let error = generator.subschema_for::<ErrorBody>();
    let mut paths: Map<String, Value> = Map::new();
    for route in routes::all() {
        let mut parameters: Vec<Value> = route
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        if let Some(query) = route.query {
            parameters.push(json!({
                "name": "query", "in": "query", "style": "form", "explode": true, "schema": query(&mut generator),
            }));
        }
        let answer = match route.answer {
            Some(answer) => json!({
                "description": "done",
                "content": {"application/json": {"schema": answer(&mut generator)}},
            }),
            None => json!({"description": "done"}),
        };
        let security = match route.audience {
            Audience::Anyone => json!([]),
            Audience::Agent | Audience::AnyAgent => json!([{"agent": []}]),
            Audience::Operator => json!([{"operator": []}]),
            Audience::AgentOrOperator => json!([{"agent": []}, {"operator": []}]),
        };
        let mut operation = json!({
            "summary": route.summary,
            "parameters": parameters,
            "security": security,
            "responses": {
                "2XX": answer,
                "default": {
                    "description": "declined or failed",
                    "content": {"application/json": {"schema": error}},
                },
            },
        });
        if let Some(body) = route.body {
            operation["requestBody"] =
                json!({"required": true, "content": {"application/json": {"schema": body(&mut generator)}}});
        }
        let entry = paths.entry(route.path).or_insert_with(|| json!({}));
        entry[route.method.as_str().to_ascii_lowercase()] = operation;
    }
    json!({
        "openapi": "3.0.3",
        "info": {"title": "Speediso controller", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {
                "operator": {"type": "http", "scheme": "bearer"},
                // OpenAPI 3.0 has no word for client certificates.
                "agent": {"type": "http", "scheme": "mutual", "description": "client certificate from enrolment"},
            },
        },
    })
}
