// Calls one function of @sentry/api, and prints what Sentry answered: status, body, and which page comes next.
//
//     node api.mjs CLIENTS FUNCTION OPTIONS
//
// The package is installed in CLIENTS. Which Sentry, and as whom: SENTRY_URL and SENTRY_AUTH_TOKEN. Exits with 1 on
// anything but success.

const [clients, name, options] = process.argv.slice(2);
const api = await import(`${clients}/node_modules/@sentry/api/dist/index.js`);

const { data, error, response } = await api[name]({
  baseUrl: process.env.SENTRY_URL,
  headers: { Authorization: `Bearer ${process.env.SENTRY_AUTH_TOKEN}` },
  ...JSON.parse(options),
});
console.log(response.status);
console.log(JSON.stringify(data ?? error, null, 1));
const next = response.headers.get("link")?.match(/rel="next"; results="true"; cursor="([^"]*)"/);
if (next) console.log(`next page: ${next[1]}`);
process.exit(response.ok ? 0 : 1);
