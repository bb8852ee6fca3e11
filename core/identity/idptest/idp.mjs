// An OpenID Connect provider for tests: oidc-provider, with a person for every name and keys that can be changed.
// It prints its issuer when it is ready, and ends with its standard input.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const ttl = Number(process.env.IDP_TTL || 3600);
let keys = [];
let down = false;
let fetches = 0;
let current;

function newKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: 'k' + (keys.length + 1) + '-' + Date.now(), use: 'sig', alg: 'RS256' };
}

const server = createServer((req, res) => {
  const url = new URL(req.url, 'http://localhost');
  if (url.pathname.startsWith('/test/')) {
    switch (url.pathname) {
      case '/test/rotate': // the new key signs; the old one stays, unless it is to go
        keys = url.searchParams.has('drop') ? [newKey()] : [newKey(), ...keys];
        current = provider();
        break;
      case '/test/down': down = true; break;
      case '/test/up': down = false; break;
    }
    res.end(String(fetches));
    return;
  }
  if (down) {
    res.statusCode = 503;
    res.end('down');
    return;
  }
  if (url.pathname === '/jwks') fetches++;
  current.callback()(req, res);
});

function provider() {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  return new Provider(issuer, {
    jwks: { keys },
    clients: [
      {
        client_id: 'weir', token_endpoint_auth_method: 'none', application_type: 'native', redirect_uris: [], response_types: [],
        grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'],
      },
      {
        client_id: 'loop', client_secret: 'the-secret-of-loop', redirect_uris: [], response_types: [], grant_types: ['client_credentials'],
      },
    ],
    cookies: { keys: ['not a secret: it is a test'] },
    claims: { openid: ['sub', 'groups', 'email', 'email_verified'] },
    scopes: ['openid', 'offline_access', 'profile', 'email'],
    conformIdTokenClaims: false,
    ttl: { IdToken: ttl, AccessToken: ttl, ClientCredentials: ttl, DeviceCode: 60, Session: 600, Interaction: 600, Grant: 86400, RefreshToken: 86400 },
    issueRefreshToken: async () => true,
    rotateRefreshToken: true,
    async findAccount(_, id) {
      return { accountId: id, claims: async () => ({ sub: id, email: `${id}@example.org`, email_verified: true, groups: ['analysts', 'dba'] }) };
    },
    features: {
      deviceFlow: { enabled: true },
      clientCredentials: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: async (_, resource) => ({ scope: '', audience: resource.replace('urn:', ''), accessTokenFormat: 'jwt', accessTokenTTL: ttl, jwt: { sign: { alg: 'RS256' } } }),
        useGrantedResource: async () => true,
      },
    },
  });
}

server.listen(Number(process.env.IDP_PORT || 0), '127.0.0.1', () => {
  keys = [newKey()];
  current = provider();
  console.log(`http://127.0.0.1:${server.address().port}`);
});
process.stdin.on('end', () => process.exit(0)).resume();
