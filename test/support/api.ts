/**
 * The public API with everything real above the sites: state database, identity, all dialects. No agents, and no
 * operation runs unless a test starts the engine, with a stand-in for the sites' answers. For tests of who may do what, and of what clients send.
 */
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Clock } from '#base/clock.ts'
import { createLog } from '#base/log.ts'
import { systemClock } from '#base/system/clock.ts'
import type { Api } from '#control/api/http/dialect.ts'
import type { RateLimitOptions } from '#control/api/http/rate-limit.ts'
import { buildApi } from '#control/api/server.ts'
import { type Administrator, bootstrapIdentity } from '#control/identity/bootstrap.ts'
import { createIdentity, type Identity } from '#control/identity/identity.ts'
import { createPasswords } from '#control/identity/passwords.ts'
import type { Role } from '#control/identity/principal.ts'
import { openReportKey } from '#control/report-key.ts'
import { openSecretBox } from '#control/identity/secret-box.ts'
import { operationKinds } from '#control/operations/definitions/list.ts'
import { createEngine, type OperationEngine } from '#control/operations/engine.ts'
import type { OperationServices } from '#control/operations/services.ts'
import { recoveryScripts } from '#control/scripts.ts'
import { seedResources } from '#control/resources/surroundings.ts'
import { type AgentBook, createAgentBook } from '#control/sites/agents.ts'
import type { SiteClient } from '#control/sites/client.ts'
import type { RegionClient } from '#control/sites/regions.ts'
import { createWitness } from '#control/sites/witness.ts'
import { openStore } from '#control/store/open.ts'
import type { Store } from '#control/store/store.ts'
import { assertInjected, type ContractName } from '../contracts/validate.ts'

export const REGION = 'local-1'
export const SITES = ['az1', 'az2'] as const

export interface Request {
  readonly method?: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE' | 'OPTIONS'
  readonly url: string
  readonly headers?: Readonly<Record<string, string>>
  /** Sent as JSON. */
  readonly body?: unknown
}

export interface Reply {
  readonly status: number
  readonly headers: Readonly<Record<string, unknown>>
  readonly text: string
  // oxlint-disable-next-line typescript/no-explicit-any -- tests read answers of many shapes
  readonly body: any
}

/** Moves on request, on top of the real time. */
export interface TestClock extends Clock {
  advance(ms: number): void
}

export class ApiLab {
  readonly #directory: string
  readonly app: Api
  readonly store: Store
  readonly identity: Identity
  readonly clock: TestClock
  readonly admin: Administrator
  /** What sites report is given to it. */
  readonly agents: AgentBook
  /** Not started; `stop` stops it. */
  readonly operations: OperationEngine

  private constructor(parts: {
    directory: string
    app: Api
    store: Store
    identity: Identity
    clock: TestClock
    admin: Administrator
    agents: AgentBook
    operations: OperationEngine
  }) {
    this.#directory = parts.directory
    this.app = parts.app
    this.store = parts.store
    this.identity = parts.identity
    this.clock = parts.clock
    this.admin = parts.admin
    this.agents = parts.agents
    this.operations = parts.operations
  }

  /**
   * `database`: its address, default a new SQLite file. `beside`: another lab on the same database. `sites`: answers commands in the place
   * of agents, `regions` in that of other regions.
   */
  static async start(
    options: {
      readonly rate?: RateLimitOptions
      readonly sites?: SiteClient
      readonly regions?: RegionClient
      readonly database?: string
      readonly beside?: ApiLab
    } = {},
  ): Promise<ApiLab> {
    const directory = await mkdtemp(join(tmpdir(), 'holdfast-api-'))
    const clock = testClock()
    const log = createLog('api', process.env['HOLDFAST_TEST_LOG'] ?? 'silent')
    const url = options.database ?? `sqlite:${join(directory, 'state.db')}`
    const store = await openStore({ url, clock, log })
    const { beside } = options
    const box = await openSecretBox(
      join(beside === undefined ? directory : beside.#directory, 'identity.key'),
    )
    const passwords = createPasswords()
    const made = await bootstrapIdentity({ store, clock, passwords, box, region: REGION })
    assert.equal(made === null, beside !== undefined)
    const admin = made ?? beside?.admin
    assert.ok(admin !== undefined)
    await seedResources(store, { region: REGION, sites: [...SITES], nowMs: clock.wallMs() })
    const agents = createAgentBook({ store, clock, silenceMs: 1_000, log })
    const witness = createWitness({
      store,
      clock,
      log,
      bootId: 'test',
      leaseMs: 8_000,
      driftMs: 500,
    })
    // No agent ever reports here by itself, so without a stand-in no command goes out.
    const commands = options.sites ?? { command: noAgent, close: async () => {} }
    const reports = openReportKey(join(directory, 'report-key.pem'))
    const services: OperationServices = {
      store,
      clock,
      log,
      agents,
      witness,
      reports,
      sites: commands,
      scripts: recoveryScripts(null, { clock, log, owner: 'test' }),
      ...(options.regions === undefined ? {} : { regions: options.regions }),
    }
    const operations = createEngine({
      store,
      clock,
      log,
      services,
      kinds: operationKinds,
      random: () => 0.5,
    })
    const identity = createIdentity({
      store,
      clock,
      passwords,
      box,
      tokenLifetimeMs: 24 * 3_600_000,
    })
    const app = buildApi({
      store,
      clock,
      log,
      identity,
      operations,
      agents,
      witness,
      commands,
      region: REGION,
      sites: SITES,
      destinations: options.regions?.names ?? [],
      mayCopy: options.regions?.mayCopy,
      otherRegions: options.regions,
      agentSilenceMs: 1_000,
      publicUrl: 'http://127.0.0.1',
      version: '0.0.0',
      stateBackup: {
        run: async () => ({ file: '/nowhere', rows: 0, bytes: 0, incarnation: '' }),
      },
      certificates: null,
      authority: '',
      reports,
      ...(options.rate === undefined ? {} : { rate: options.rate }),
    })
    await app.ready()
    return new ApiLab({ directory, app, store, identity, clock, admin, agents, operations })
  }

  /** One request; its answer is checked when a contract is named. */
  async call(request: Request, contract?: ContractName): Promise<Reply> {
    const { method = 'GET', url, headers = {}, body } = request
    const reply = await this.app.inject({
      method,
      url,
      headers: {
        host: '127.0.0.1:7410',
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { payload: JSON.stringify(body) }),
    })
    if (contract !== undefined) assertInjected(contract, { method, url }, reply)
    assert.match(String(reply.headers['x-request-id']), /^req-/)
    const text = reply.body
    const isJson = String(reply.headers['content-type'] ?? '').startsWith('application/json')
    const parsed: unknown = isJson && text !== '' ? JSON.parse(text) : undefined
    return { status: reply.statusCode, headers: reply.headers, text, body: parsed }
  }

  /** Logs in with a password; null when refused. `scope` as in the request. */
  async login(
    user: { readonly name: string; readonly password: string },
    scope?: unknown,
  ): Promise<string | null> {
    const reply = await this.call(
      { method: 'POST', url: '/v3/auth/tokens', body: this.loginBody(user, scope) },
      'iam',
    )
    return reply.status === 201 ? String(reply.headers['x-subject-token']) : null
  }

  loginBody(user: { readonly name: string; readonly password: string }, scope?: unknown): unknown {
    const domain = { name: this.admin.domain }
    const identity = { methods: ['password'], password: { user: { ...user, domain } } }
    return { auth: { identity, ...(scope === undefined ? {} : { scope }) } }
  }

  /** The administrator's token for the first project. */
  async adminToken(): Promise<string> {
    const { user: name, password, project_id: id } = this.admin
    const token = await this.login({ name, password }, { project: { id } })
    assert.ok(token !== null)
    return token
  }

  /** A new user with one role in one project, and its token there. */
  async userWith(
    role: Role,
    project: string,
  ): Promise<{ id: string; name: string; password: string; token: string }> {
    const domain = await this.domain()
    const name = `${role}-${project.slice(0, 6)}-${++this.#users}`
    const password = `password of ${name}`
    const { management } = this.identity
    const user = await management.createUser(domain, { name, password, defaultProject: null })
    await management.grant(domain, user.id, 'project', project, role)
    const token = await this.login({ name, password }, { project: { id: project } })
    assert.ok(token !== null)
    return { id: user.id, name, password, token }
  }
  #users = 0

  async project(name: string): Promise<string> {
    return (await this.identity.management.createProject(await this.domain(), name, '')).id
  }

  async domain(): Promise<string> {
    const row = await this.store.db.selectFrom('domains').select('id').executeTakeFirstOrThrow()
    return row.id
  }

  /** Serves on a free port of the loopback; returns the origin. */
  async listen(): Promise<string> {
    return await this.app.listen({ host: '127.0.0.1', port: 0 })
  }

  async stop(): Promise<void> {
    await this.app.close()
    await this.operations.stop()
    await this.store.close()
    await rm(this.#directory, { recursive: true, force: true })
  }
}

function testClock(): TestClock {
  let ahead = 0
  return {
    wallMs: () => systemClock.wallMs() + ahead,
    bootMs: () => systemClock.bootMs() + ahead,
    after: (delayMs, fire) => systemClock.after(delayMs, fire),
    advance(ms) {
      ahead += ms
    },
  }
}

async function noAgent(): Promise<never> {
  throw new Error('there are no agents in this lab')
}
