import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import type { SignedRequest } from './authenticator.ts'
import {
  canonicalRequests,
  escape,
  parseAuthorization,
  parseSdkDate,
  signatureFits,
  stringToSign,
} from './signature.ts'

const ACCESS_KEY = 'AKEXAMPLE0123456789A'
const SECRET = 'SkExampleSecret0123456789abcdefghijklmnop'
const DATE = '20240102T030405Z'
const PROJECT = '0123456789abcdef0123456789abcdef'
const EVS = 'evs.region-1.example.test'
const GROUP = '57b84092-7a75-4e22-bc2a-fab0bec547c5'
const GROUPS = `/v2/${PROJECT}/os-vendor-replication-consistency-groups`
const LIST = `/v2/${PROJECT}/os-vendor-replications?sort_key=created_at&limit=2&name=my%20pair%2F1*~&Status=available`

interface Vector {
  readonly name: string
  readonly method: string
  readonly target: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
  readonly authorization: string
  /** SHA-256 of the canonical request, where it was published. */
  readonly canonicalHash?: string
}

const node = {
  'content-type': 'application/json',
  host: EVS,
  'x-project-id': PROJECT,
  'x-sdk-date': DATE,
}
const go = {
  accept: 'application/json',
  'user-agent': 'golangsdk/2.0.0',
  host: EVS,
  'x-sdk-date': DATE,
  'x-project-id': PROJECT,
}
const access = (headers: string, signature: string) =>
  `SDK-HMAC-SHA256 Access=${ACCESS_KEY}, SignedHeaders=${headers}, Signature=${signature}`
const credential = (headers: string, signature: string) =>
  `SDK-HMAC-SHA256 Credential=${ACCESS_KEY}/20240102///sdk_request, SignedHeaders=${headers}, Signature=${signature}`
const NODE_HEADERS = 'content-type;host;x-project-id;x-sdk-date'

const SYNC_BODY = '{"os-sync-replication-consistency-group":null}\n'

const VECTORS: readonly Vector[] = [
  {
    name: 'V1: GET with a query and the body {} that the Node SDK sends',
    method: 'GET',
    target: LIST,
    headers: node,
    body: '{}',
    authorization: access(
      NODE_HEADERS,
      '8776b6b4d9a59dfd8da5e1edd3a19fd6754a34b0073b37683a405ae6fdf7af94',
    ),
    canonicalHash: 'ae5a3dce2a9d46fa0af58b16e82fe1be6645ee3049643f12935c38189e2afb64',
  },
  {
    name: 'V2: POST create pair',
    method: 'POST',
    target: `/v2/${PROJECT}/os-vendor-replications`,
    headers: node,
    body: '{"replication":{"name":"pair-1","volume_ids":["18aa67ea-c7cb-4826-800d-50e67f0de75b","375d23be-3658-498f-8b50-d3b950a890ec"],"priority_station":"az1","replication_model":"hypermetro"}}',
    authorization: access(
      NODE_HEADERS,
      'e2c061e5d4419233b383682b6802ab26d5d2770b5b7f28aaf0e80a155293c818',
    ),
    canonicalHash: '60aa35ab3db3111d293c902ee2433c75c60bec0bb2d331faa3d612c065306ad7',
  },
  {
    name: 'V3: DELETE group, no body',
    method: 'DELETE',
    target: `${GROUPS}/${GROUP}`,
    headers: node,
    body: '',
    authorization: access(
      NODE_HEADERS,
      '94b765f32dd2be56633815fbd8c3202dd32fdbfa4095ed78848ab5ed92e3b147',
    ),
    canonicalHash: 'd9c27fecac6a88f96cb66507650e015759104a8ffbb8dd42588bb478c96cd00a',
  },
  {
    name: 'V4: repeated query name, empty value, security token',
    method: 'GET',
    target: '/v3/projects?name=zone-a&name=zone-b&x.y=',
    headers: { ...node, host: 'iam.region-1.example.test', 'x-security-token': 'TOKENEXAMPLE' },
    body: '{}',
    authorization: access(
      `${NODE_HEADERS};x-security-token`,
      'df5dddb468af2aeabd5721719e5973f29698cd85d7336ba31540929de5b01703',
    ),
    canonicalHash: '8d300b633c15d577b803f446664fcd53454188a1232f452be28646e4dd43d400',
  },
  {
    name: 'V5: path escaped twice and unsigned payload',
    method: 'POST',
    target: `/v2/${PROJECT}/volumes/a%20b`,
    headers: {
      ...node,
      'content-type': 'text/plain',
      'x-sdk-content-sha256': 'UNSIGNED-PAYLOAD',
    },
    body: '{"a":1}',
    authorization: access(
      'content-type;host;x-project-id;x-sdk-content-sha256;x-sdk-date',
      'ab53ae6927e2ddba3a3c549a04966fd116a20b33aaf3262282c161bf14cbde59',
    ),
    canonicalHash: 'b7bd18e8691671a771e2a86cf64a65dd3139502bc2c0b2f29c5b779ecd57903e',
  },
  {
    name: 'G1: GET list by a Go client, Access form',
    method: 'GET',
    target: LIST,
    headers: go,
    body: '',
    authorization: access(
      'accept;user-agent;x-sdk-date',
      '17dea7ed61782b4a83d21aece14255381ea49992a974ef20f552da0361509ee5',
    ),
  },
  {
    name: 'G1: GET list by a Go client, Credential form',
    method: 'GET',
    target: LIST,
    headers: go,
    body: '',
    authorization: credential(
      'accept;host;user-agent;x-sdk-date',
      'cca3cd3b54a392f8260c4e5ee2c228aaff91fea2d2b319a2a14a82831c598d3d',
    ),
  },
  {
    name: 'G2: POST action with a trailing line break, Access form',
    method: 'POST',
    target: `${GROUPS}/${GROUP}/action`,
    headers: { ...go, 'content-type': 'application/json' },
    body: SYNC_BODY,
    authorization: access(
      'accept;content-type;user-agent;x-sdk-date',
      '6b925fe0749af2f7788ebad2cb4d67918644405547a219cca29a0b5aa6b28637',
    ),
  },
  {
    name: 'G2: POST action with a trailing line break, Credential form',
    method: 'POST',
    target: `${GROUPS}/${GROUP}/action`,
    headers: { ...go, 'content-type': 'application/json' },
    body: SYNC_BODY,
    authorization: credential(
      'accept;content-type;host;user-agent;x-sdk-date',
      '29688854d64315508bce8b6325b87137971ce7c55dc462ec17a58ce9516e0810',
    ),
  },
]

const requestOf = ({ method, target, headers, body }: Omit<Vector, 'name'>): SignedRequest => ({
  method,
  target,
  headers,
  body: Buffer.from(body),
  projectInPath: PROJECT,
  source: '127.0.0.1',
})

const fits = (vector: Omit<Vector, 'name'>, secret = SECRET): boolean => {
  const authorization = parseAuthorization(vector.authorization)
  assert.ok(authorization !== null)
  return signatureFits(requestOf(vector), authorization, DATE, secret)
}

for (const vector of VECTORS) {
  test(`${vector.name} verifies, and nothing of it can be changed`, () => {
    assert.equal(fits(vector), true)
    if (vector.canonicalHash !== undefined) {
      const authorization = parseAuthorization(vector.authorization)
      assert.ok(authorization !== null)
      const hashes = canonicalRequests(requestOf(vector), authorization).map((canonical) =>
        stringToSign(canonical, authorization, DATE).split('\n').at(-1),
      )
      assert.ok(hashes.includes(vector.canonicalHash))
    }
    assert.equal(fits(vector, `${SECRET}x`), false)
    assert.equal(fits({ ...vector, method: vector.method === 'GET' ? 'POST' : 'GET' }), false)
    assert.equal(fits({ ...vector, target: `${vector.target}1` }), false)
    assert.equal(fits({ ...vector, target: vector.target.replace('/v', '/w') }), false)
    const unsigned = vector.headers['x-sdk-content-sha256'] === 'UNSIGNED-PAYLOAD'
    assert.equal(fits({ ...vector, body: `${vector.body} ` }), unsigned)
    const authorization = parseAuthorization(vector.authorization)
    for (const name of authorization?.signedHeaders ?? []) {
      const headers = { ...vector.headers, [name]: `${vector.headers[name]}x` }
      assert.equal(fits({ ...vector, headers }), false, name)
    }
  })
}

test('a trailing slash on the wire changes nothing: the canonical path always has one', () => {
  const [, , group] = VECTORS
  assert.ok(group !== undefined)
  assert.equal(fits({ ...group, target: `${group.target}/` }), true)
})

test('an announced body digest must be the digest of the body', () => {
  const digest = createHash('sha256').update('{"a":1}').digest('hex')
  const request = (body: string): SignedRequest =>
    requestOf({
      method: 'POST',
      target: '/',
      headers: { 'x-sdk-content-sha256': digest },
      body,
      authorization: '',
    })
  const authorization = { signedHeaders: ['x-sdk-content-sha256'], scope: null }
  const endsOf = (body: string) =>
    canonicalRequests(request(body), authorization).map((text) => text.split('\n').at(-1))
  assert.deepEqual(endsOf('{"a":1}'), [digest])
  assert.ok(!endsOf('{"a":2}').includes(digest))
})

test('the Python SDK signs the empty hash even when it announces an unsigned payload', () => {
  const headers = { 'x-sdk-content-sha256': 'UNSIGNED-PAYLOAD' }
  const request = requestOf({ method: 'GET', target: '/', headers, body: '', authorization: '' })
  const ends = canonicalRequests(request, { signedHeaders: [], scope: null }).map((text) =>
    text.split('\n').at(-1),
  )
  const empty = createHash('sha256').update('').digest('hex')
  assert.deepEqual(ends, ['UNSIGNED-PAYLOAD', empty])
})

test('only the Credential form takes the first of repeated query values, ignores case and moves a query', () => {
  const request = requestOf({
    method: 'POST',
    target: '/x?b=2&A=1&b=1',
    headers: {},
    body: '',
    authorization: '',
  })
  const queries = (scope: { date: string; region: string; service: string } | null) => [
    ...new Set(
      canonicalRequests(request, { signedHeaders: [], scope }).map((text) => text.split('\n')[2]),
    ),
  ]
  assert.deepEqual(queries(null), ['A=1&b=1&b=2'])
  const scope = { date: '20240102', region: '', service: '' }
  assert.deepEqual(queries(scope), ['A=1&b=2', '', 'A=1&b=1&b=2'])
})

test('escaping keeps letters, digits and -._~ only, over UTF-8, in capitals', () => {
  assert.equal(escape("aZ0-._~ *!'()/+ä"), 'aZ0-._~%20%2A%21%27%28%29%2F%2B%C3%A4')
})

test('what is neither form of the header, or no date, is not understood', () => {
  for (const header of [
    '',
    'Basic dXNlcg==',
    'SDK-HMAC-SHA256 Access=a',
    `V11-HMAC-SHA256 Credential=a/20240102/r/s, SignedHeaders=host, Signature=${'0'.repeat(64)}`,
    access('Host', '0'.repeat(64)),
    access('host', '0'.repeat(63)),
    access('host', 'G'.repeat(64)),
    `${access('host', '0'.repeat(64))} `,
  ]) {
    assert.equal(parseAuthorization(header), null, header)
  }
  assert.equal(parseSdkDate('20240102T030405Z'), Date.UTC(2024, 0, 2, 3, 4, 5))
  for (const date of ['', '20240102T030405', '20241302T030405Z', '2024-01-02T03:04:05Z']) {
    assert.equal(parseSdkDate(date), null, date)
  }
})
