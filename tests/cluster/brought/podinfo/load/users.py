from locust import FastHttpUser, between, tag, task


class Visitor(FastHttpUser):
    wait_time = between(0.05, 0.15)

    @tag("read")
    @task(3)
    def home(self):
        self.client.get("/")

    @tag("write")
    @task
    def say(self):
        with self.client.post("/echo", json={"said": "hello"}, catch_response=True) as response:
            if "hello" not in response.text:
                response.failure(f"no echo from the backend: {response.text[:80]}")
