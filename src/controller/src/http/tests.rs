#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use speediso_model::api::path;
use tower::ServiceExt as _;

use super::auth::Audience;
use super::{api, openapi_document, routes};
use crate::server::{Server, Settings};

async fn server(dir: &tempfile::TempDir) -> Server {
    let loopback = "127.0.0.1:0".parse().unwrap();
    Server::start(Settings {
        data: dir.path().join("data"),
        listen: loopback,
        boot_listen: loopback,
        url: None,
        boot_url: None,
        boot_files: dir.path().to_owned(),
        boot_addon: false,
        ssh_keys: Vec::new(),
        link_test_ports: None,
        pci_ids: None,
        ssh: Default::default(),
        idle_reboot: None,
    })
    .await
    .unwrap()
}

/// With every variable part filled in.
fn filled(path: &str) -> String {
    let id = "6f1f6e0e-54a9-4bd5-a7c0-8f2b2a3c1d11";
    let part = |p: &str| {
        if p == "{rule}" {
            "1".to_owned()
        } else if p.starts_with('{') {
            id.to_owned()
        } else {
            p.to_owned()
        }
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn no_route_answers_without_credentials_but_the_two_that_must() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let operator = std::fs::read_to_string(dir.path().join("data/operator.token")).unwrap();
    let router = api(server.state.clone());
    let ask = |route: &routes::Route, token: Option<&str>| {
        let mut request = Request::builder().method(&route.method).uri(filled(route.path));
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.trim()));
        }
        let (router, request) = (router.clone(), request.body(Body::empty()).unwrap());
        async move { router.oneshot(request).await.unwrap().status() }
    };
    let mut open = Vec::new();
    for route in routes::all() {
        let name = format!("{} {}", route.method, route.path);
        let anonymous = ask(&route, None).await;
        let guessed = ask(&route, Some(&"0".repeat(64))).await;
        let as_operator = ask(&route, Some(&operator)).await;
        match route.audience {
            Audience::Anyone => open.push(route.path),
            Audience::Operator | Audience::AgentOrOperator => {
                assert_eq!((anonymous, guessed), (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED), "{name}");
                assert_ne!(as_operator, StatusCode::UNAUTHORIZED, "{name}");
            }
            Audience::Agent | Audience::AnyAgent => {
                assert_eq!((anonymous, guessed), (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED), "{name}");
                assert_eq!(as_operator, StatusCode::UNAUTHORIZED, "an operator is no agent: {name}");
            }
        }
    }
    assert_eq!(open, [path::TIME, path::ENROL]);
}

#[tokio::test]
async fn pages_are_behind_the_login() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(&dir).await;
    let operator = std::fs::read_to_string(dir.path().join("data/operator.token")).unwrap();
    let router = api(server.state.clone());
    let get = |path: &str, cookie: Option<&str>| {
        let mut request = Request::builder().uri(path);
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, cookie);
        }
        let (router, request) = (router.clone(), request.body(Body::empty()).unwrap());
        async move { router.oneshot(request).await.unwrap() }
    };
    let node = "/machines/6f1f6e0e-54a9-4bd5-a7c0-8f2b2a3c1d11";
    for path in ["/", node] {
        let answer = get(path, None).await;
        assert_eq!(
            (answer.status(), &answer.headers()[header::LOCATION]),
            (StatusCode::SEE_OTHER, &"/login".parse().unwrap())
        );
    }
    for path in ["/fragments/machines".to_owned(), format!("/fragments{node}")] {
        assert_eq!(get(&path, None).await.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(get(&path, Some("__Host-speediso=9999999999.00")).await.status(), StatusCode::UNAUTHORIZED);
    }
    let login = |token: String| {
        let request = Request::post("/login")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(format!("token={}", token.trim())))
            .unwrap();
        router.clone().oneshot(request)
    };
    assert_eq!(login("0".repeat(64)).await.unwrap().status(), StatusCode::FORBIDDEN);
    let answer = login(operator).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    let cookie = answer.headers()[header::SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    let page = get("/", Some(&cookie)).await;
    assert_eq!(page.status(), StatusCode::OK);
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
    assert_eq!(get(node, Some(&cookie)).await.status(), StatusCode::NOT_FOUND);
}

#[test]
fn the_document_has_every_route_and_no_other() {
    let document = openapi_document();
    let in_document: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, entry)| {
            entry.as_object().unwrap().keys().map(move |m| format!("{} {path}", m.to_uppercase()))
        })
        .collect();
    let in_table: BTreeSet<String> = routes::all().iter().map(|r| format!("{} {}", r.method, r.path)).collect();
    assert_eq!(in_document, in_table);
    assert_eq!(routes::all().len(), in_table.len(), "a route stands twice in the table");
    insta::assert_json_snapshot!(document);
}

/// Every schema that is referred to is there.
#[test]
fn the_document_is_whole() {
    let document = openapi_document();
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"").skip(1) {
        let name = reference.split('"').next().unwrap();
        let name = name.strip_prefix("#/components/schemas/").unwrap_or_else(|| panic!("{name}"));
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
}

#[test]
fn docs_name_every_path() {
    let docs = include_str!("../../../../docs/protocol.md");
    for route in routes::all() {
        assert!(docs.contains(route.path), "{} is not in docs/protocol.md", route.path);
    }
}
