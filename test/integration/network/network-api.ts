/** Calls of both network APIs with the networks that they are about; every answer is held against the contract. */
import assert from 'node:assert/strict'
import { createPort, deletePort } from '#control/resources/networks.ts'
import { violations } from '../../contracts/validate.ts'
import { ApiLab, type Reply, type Request } from '../../support/api.ts'

/** What the contract leaves out and this server has: see docs/compatibility/network.md. */
const BEYOND = [
  /^POST \/v2\.0\/security-groups$/,
  /^DELETE \/v2\.0\/security-groups\/[^/]+$/,
  / \/v2\.0\/security-group-rules/,
  /^(?:POST|PUT|DELETE) \/v2\.0\/ports/,
  /^(?:GET|POST) \/v1\/[^/]+\/security-group-rules/,
]

export const TABLES = [
  'vpcs',
  'subnets',
  'ports',
  'security_groups',
  'security_group_rules',
] as const

export const VPCS = '/v1/{project}/vpcs'
export const SUBNETS = '/v1/{project}/subnets'
export const PORTS = '/v1/{project}/ports'
export const GROUPS = '/v1/{project}/security-groups'
export const RULES = '/v1/{project}/security-group-rules'

export class NetworkApi {
  readonly lab: ApiLab
  readonly project: string
  readonly token: string
  #serial = 0

  private constructor(lab: ApiLab, token: string) {
    this.lab = lab
    this.project = lab.admin.project_id
    this.token = token
  }

  static async start(): Promise<NetworkApi> {
    const lab = await ApiLab.start()
    return new NetworkApi(lab, await lab.adminToken())
  }

  async call(method: string, url: string, body?: unknown): Promise<Reply> {
    const path = url.replace('{project}', this.project)
    const headers = { 'x-auth-token': this.token }
    const request = {
      method,
      url: path,
      headers,
      ...(body === undefined ? {} : { body }),
    } as Request
    const reply = await this.lab.call(request)
    const found = violations('compute', {
      method,
      path,
      status: reply.status,
      headers: reply.headers,
      text: reply.text,
    })
    const bare = `${method} ${path.replace(/\?.*$/s, '')}`
    if (!BEYOND.some((pattern) => pattern.test(bare))) {
      assert.deepEqual(found, [], `${method} ${path} → ${reply.status}: ${reply.text}`)
    }
    return reply
  }

  async ok(method: string, url: string, body?: unknown, status = 200): Promise<Reply['body']> {
    const reply = await this.call(method, url, body)
    assert.equal(reply.status, status, `${method} ${url}: ${reply.text}`)
    return reply.body
  }

  async #snapshot(): Promise<string> {
    const { db } = this.lab.store
    return JSON.stringify(
      await Promise.all(
        TABLES.map((table) => db.selectFrom(table).selectAll().orderBy('id').execute()),
      ),
    )
  }

  /** Refused with this status and code, and nothing changed. */
  async refused(
    method: string,
    url: string,
    body: unknown,
    status: number,
    code: string,
  ): Promise<void> {
    const before = await this.#snapshot()
    const reply = await this.call(method, url, body)
    const where = `${method} ${url} ${JSON.stringify(body)} → ${reply.text}`
    assert.equal(reply.status, status, where)
    assert.equal(reply.body.code ?? reply.body.NeutronError?.type, code, where)
    if (reply.body.NeutronError === undefined) {
      assert.deepEqual(reply.body.error, { code, message: reply.body.message })
    }
    assert.equal(await this.#snapshot(), before, `${where} changed something`)
  }

  async vpc(cidr = '10.0.0.0/16'): Promise<string> {
    return (await this.ok('POST', VPCS, { vpc: { name: `vpc-${++this.#serial}`, cidr } })).vpc
      .id as string
  }

  async subnet(of: string, over: object = {}): Promise<Reply['body']> {
    const body = {
      name: `subnet-${++this.#serial}`,
      cidr: '10.0.1.0/24',
      gateway_ip: '10.0.1.1',
      vpc_id: of,
      ...over,
    }
    return (await this.ok('POST', SUBNETS, { subnet: body })).subnet
  }

  async port(of: string, over: object = {}): Promise<{ id: string; address: string }> {
    const made = await this.lab.store.write(
      async (tx) =>
        await createPort(
          tx,
          {
            project: this.project,
            subnet: of,
            address: null,
            server: null,
            place: 0,
            securityGroups: [],
            deleteWithServer: true,
            name: '',
            ...over,
          },
          this.lab.clock.wallMs(),
        ),
    )
    assert.ok(made.ok)
    return made.port
  }

  async dropPort(id: string): Promise<void> {
    await this.lab.store.write((tx) => deletePort(tx, id))
  }
}
