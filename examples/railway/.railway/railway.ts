import { defineRailway, github, postgres, project, service } from "railway/iac";

export default defineRailway(() => {
  const database = postgres("database");

  const web = service("web", {
    source: github("you/shop"),
    build: { builder: "DOCKERFILE" },
    // In place of the image's ENTRYPOINT, so it names it. There is no shell: "$PORT" would stay as it is.
    start: "/opt/entrypoint/bin/entrypoint -- node server.js",
    // Asked until it says 200, then never again. 503 after a bad migration keeps the old release in place.
    healthcheck: "/api/health",
    healthcheckTimeout: 300,
    replicas: 2,
    deploy: {
      overlapSeconds: 5,
      // From SIGTERM to SIGKILL. Railway's own default is 0.
      drainingSeconds: 15,
      restartPolicyType: "ON_FAILURE",
      restartPolicyMaxRetries: 3,
    },
    env: {
      NODE_ENV: "production",
      DATABASE_URL: database.env.DATABASE_URL,
      ENTRYPOINT_STOP_GRACE: "12",
      // Next.js ends with 143 when asked to stop, which isn't a crash.
      ENTRYPOINT_REMAP_EXIT: "forwarded=0",
    },
  });

  return project("shop", { resources: [database, web] });
});
