import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { PlanDocument } from '#client/recovery.ts'
import { parsePlan, planLines } from './plan-file.ts'

const TEXT = `
# the database first
wave
  start db
wave pause "Look at \\"orders\\" # 1."
  start app-1 app-2   # both
  start web
instance db
  probe tcp 5432 within 120
  probe boot "login: "
  probe command /bin/check "a b" within 9
  not-ready stop
  script-before move-address within 30
  script-after announce
instance app-2
  after app-1
  probe http 80 /health status 200 contains ok within 60
`
const PLAN: PlanDocument = {
  waves: [
    { instances: ['db'] },
    { instances: ['app-1', 'app-2', 'web'], pause: 'Look at "orders" # 1.' },
  ],
  instances: {
    db: {
      probes: [
        { probe: { kind: 'tcp', port: 5432 }, timeout_s: 120 },
        { probe: { kind: 'boot', marker: 'login: ' } },
        { probe: { kind: 'command', command: ['/bin/check', 'a b'] }, timeout_s: 9 },
      ],
      not_ready: 'stop',
      script_before: { script: 'move-address', timeout_s: 30 },
      script_after: { script: 'announce' },
    },
    'app-2': {
      after: ['app-1'],
      probes: [
        {
          probe: { kind: 'http', port: 80, path: '/health', status: 200, contains: 'ok' },
          timeout_s: 60,
        },
      ],
    },
  },
}

test('a plan is read from a file that people write, or from JSON', () => {
  assert.deepEqual(parsePlan(TEXT), PLAN)
  assert.deepEqual(parsePlan(JSON.stringify(PLAN)), PLAN)
  assert.deepEqual(parsePlan('# nothing\n'), { waves: [], instances: {} })
})

test('a plan that is shown can be read again, whatever its instances are called', () => {
  const names = { one: 'app-1', two: 'app-2', three: 'db', four: 'web', five: 'twin', six: 'twin' }
  const ids = new Map(Object.entries(names).map(([id, name]) => [name, id]))
  const byId = JSON.parse(
    JSON.stringify(PLAN).replaceAll(/"(app-1|app-2|db|web)"/g, (_, name: string) =>
      JSON.stringify(ids.get(name)),
    ),
  ) as PlanDocument
  assert.deepEqual(parsePlan(planLines(byId, names).join('\n')), PLAN)
  assert.deepEqual(planLines({ waves: [{ instances: ['five', 'gone', 'four'] }] }, names), [
    'wave',
    '  start five gone web',
  ])
})

test('what is wrong with a file is said with its line', () => {
  for (const [text, line, why] of [
    ['start db', 1, /belongs below a `wave`/],
    ['wave\nstart', 2, /start NAME/],
    ['wave paused x', 1, /accepted: wave/],
    ['instance a\ninstance a', 2, /already/],
    ['instance a\nprobe udp 5', 2, /accepted: boot, tcp, http, command/],
    ['instance a\nprobe tcp five', 2, /whole number/],
    ['instance a\nprobe http 80 / status', 2, /probe http PORT PATH/],
    ['instance a\nnot-ready perhaps', 2, /go-on, stop or pause/],
    ['instance a\nscript-before a b', 2, /NAME within SECONDS/],
    ['instance a\nprobe boot "x', 2, /not ended/],
    ['instance a\n\nsleep 5', 3, /sleep is not known/],
    ['after b', 1, /instance NAME/],
  ] as const) {
    assert.throws(
      () => parsePlan(text),
      (error: Error) => {
        assert.match(error.message, new RegExp(`line ${line} of the plan`))
        assert.match(error.message, why)
        return true
      },
    )
  }
  assert.throws(() => parsePlan('{"waves": '), /not JSON/)
})
