import mlflow


def test_a(client, tracking_uri, tmp_path):
    r = client.create_run("0")
    client.log_text(r.info.run_id, "x", "a.txt")
    mlflow.set_experiment("hello")
    with mlflow.start_run():
        mlflow.log_metric("a", 1)


def test_b(client, tracking_uri, tmp_path):
    assert len(client.search_experiments()) == 1
    assert client.get_experiment("0").artifact_location.startswith(str(tmp_path))
    mlflow.start_run()


def test_c():
    assert mlflow.active_run() is None
