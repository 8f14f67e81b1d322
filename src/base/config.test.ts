import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  addressOption,
  booleanOption,
  choiceOption,
  envName,
  flagName,
  formatAddress,
  integerOption,
  listOption,
  OPTION_REFUSED,
  optional,
  originOption,
  pathOption,
  parseAddress,
  resolveOptions,
  type Sources,
  textOption,
} from './config.ts'
import { Fault } from './fault.ts'

const table = {
  site: textOption({ about: '.', accepts: 'letters', pattern: /^[a-z]+$/ }),
  leaseMs: integerOption({ about: '.', unit: 'ms', default: 8, min: 1, max: 10 }),
  'pki.ca': optional(pathOption({ about: '.' })),
  secret: optional(
    textOption({ about: '.', accepts: 'hex', pattern: /^[0-9a-f]+$/, secret: true }),
  ),
}

const refusal = (sources: Sources): string[] => {
  try {
    resolveOptions(table, sources)
  } catch (error) {
    assert.ok(error instanceof Fault)
    assert.equal(error.kind, OPTION_REFUSED)
    return error.detail['problems'] as string[]
  }
  assert.fail('nothing was refused')
}

test('a flag wins over the environment, the environment over the file, the file over the default', () => {
  const file = { name: 'f.json', content: { site: 'file', leaseMs: 1, pki: { ca: '/ca' } } }
  const env = { HOLDFAST_SITE: 'env', HOLDFAST_LEASE_MS: '2', PATH: '/bin' }
  const values = resolveOptions(table, { file, env, flags: { site: 'flag', leaseMs: undefined } })
  assert.deepEqual(values, { site: 'flag', leaseMs: 2, 'pki.ca': '/ca', secret: undefined })
  assert.equal(resolveOptions(table, { flags: { site: 'x' } }).leaseMs, 8)
})

test('a relative path in the file is relative to the file, elsewhere it is left as it is', () => {
  const file = {
    name: 'f.json',
    content: { site: 'x', pki: { ca: 'ca.pem' } },
    resolvePath: (path: string) => `/etc/${path}`,
  }
  assert.equal(resolveOptions(table, { file })['pki.ca'], '/etc/ca.pem')
  assert.equal(resolveOptions(table, { file, flags: { 'pki.ca': 'b.pem' } })['pki.ca'], 'b.pem')
})

test('a wrong value names the option, where it stands and what is accepted, also when a flag hides it', () => {
  const file = { name: 'f.json', content: { leaseMs: 99 } }
  assert.deepEqual(refusal({ file, flags: { site: 'x', leaseMs: '3' } }), [
    'leaseMs (file f.json): 99 is not accepted, accepted: a whole number from 1 to 10',
  ])
  assert.deepEqual(refusal({ env: { HOLDFAST_LEASE_MS: '3s' }, flags: { site: 'x' } }), [
    'leaseMs (environment HOLDFAST_LEASE_MS): "3s" is not accepted, accepted: a whole number from 1 to 10',
  ])
  assert.deepEqual(refusal({ flags: { site: 'X1' } }), [
    'site (flag --site): "X1" is not accepted, accepted: letters',
  ])
})

test('an unknown option is refused with the nearest known one', () => {
  const file = { name: 'f.json', content: { site: 'x', leasems: 1, pki: { cacert: 'x' } } }
  assert.deepEqual(refusal({ file, env: { HOLDFAST_SITES: 'x', HOLDFAST_OTHER_PART: '1' } }), [
    'leasems (file f.json): unknown option, did you mean leaseMs?',
    'pki.cacert (file f.json): unknown option',
    'HOLDFAST_SITES (environment): unknown option, did you mean HOLDFAST_SITE?',
    'HOLDFAST_OTHER_PART (environment): unknown option',
  ])
})

test('variables of other parts, and of the tests, are no mistake', () => {
  const env = { HOLDFAST_SITE: 'x', HOLDFAST_LISTEN: '1', HOLDFAST_TEST_SEED: '7' }
  assert.equal(resolveOptions(table, { env, foreignEnv: ['HOLDFAST_LISTEN'] }).site, 'x')
})

test('every problem is reported at once, and a required option says where it may be given', () => {
  assert.deepEqual(refusal({ flags: { leaseMs: 'x' } }), [
    'leaseMs (flag --lease-ms): "x" is not accepted, accepted: a whole number from 1 to 10',
    'site: required and not given (file key site, HOLDFAST_SITE or --site), accepted: letters',
  ])
  assert.deepEqual(refusal({ file: { name: 'f.json', content: [] }, flags: { site: 'x' } }), [
    'f.json: not a JSON object',
  ])
})

test('a secret never appears in a refusal', () => {
  assert.deepEqual(refusal({ env: { HOLDFAST_SECRET: 'hunter2' }, flags: { site: 'x' } }), [
    'secret (environment HOLDFAST_SECRET): the value given is not accepted, accepted: hex',
  ])
})

test('names of variables and flags follow from the key', () => {
  assert.equal(envName('peerSilenceMs'), 'HOLDFAST_PEER_SILENCE_MS')
  assert.equal(envName('pki.caKey'), 'HOLDFAST_PKI_CA_KEY')
  assert.equal(flagName('pki.ca'), '--pki-ca')
})

test('each kind of option accepts its forms and nothing else', () => {
  const about = '.'
  const cases: [string, { parse(raw: unknown): { ok: boolean } }, unknown[], unknown[]][] = [
    ['boolean', booleanOption({ about }), [true, 'false'], ['yes', 1, null, '']],
    ['choice', choiceOption({ about, choices: ['a', 'b'] }), ['a'], ['c', 1, '']],
    [
      'integer',
      integerOption({ about, min: -1, max: 9 }),
      [3, '3', '-1', 9],
      ['', ' 3', '3.0', 1.5, 10, '1e1', null, true],
    ],
    [
      'list',
      listOption({ about, item: 'letters', pattern: /^[a-z]+$/ }),
      ['a,b', ['a'], 'a'],
      ['', [], 'a,,b', 'a,a', [1], {}],
    ],
    [
      'address',
      addressOption({ about }),
      ['127.0.0.1:0', 'host.example:65535', '[::1]:80'],
      [':80', 'host', 'host:65536', '::1:80', 'a b:1', 80, 'host:'],
    ],
    [
      'origin',
      originOption({ about, schemes: ['https'] }),
      ['https://a:1', 'https://a/'],
      ['http://a', 'https://a/x', 'https://u@a', 'a:1', 1],
    ],
    ['path', pathOption({ about }), ['x', '/x'], ['', 'a\0b', 1]],
  ]
  for (const [kind, option, good, bad] of cases) {
    for (const raw of good)
      assert.equal(option.parse(raw).ok, true, `${kind} ${JSON.stringify(raw)}`)
    for (const raw of bad)
      assert.equal(option.parse(raw).ok, false, `${kind} ${JSON.stringify(raw)}`)
  }
  assert.equal(formatAddress(parseAddress('[::1]:80') ?? { host: '', port: 0 }), '[::1]:80')
})
