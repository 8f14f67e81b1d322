/**
 * The real `openstack` command and openstacksdk, in one Python process that stays: loading their modules takes longer than what most
 * commands do. Between them and the server stands a witness that passes everything on and holds each answer against the contract.
 */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, request, type Server } from 'node:http'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import type { Credentials } from '#client/credentials.ts'
import { type ContractName, violations } from '../contracts/validate.ts'

/** The interpreter of the system's packages. */
const PYTHON = '/usr/bin/python3'

const DRIVER = `
import contextlib, io, json, sys, traceback
import openstack
from openstackclient import shell
answers = sys.stdout
print('ready', flush=True)
for line in sys.stdin:
    wanted = json.loads(line)
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if 'argv' in wanted:
                code = shell.main(wanted['argv'])
            else:
                exec(wanted['script'], {'openstack': openstack, 'json': json})
        except SystemExit as end:
            code = end.code
        except Exception:
            traceback.print_exc()
            code = 1
    answers.write(json.dumps({'code': code or 0, 'out': out.getvalue(), 'err': err.getvalue()}) + '\\n')
    answers.flush()
`

export interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
}

export class OpenStack {
  readonly #child: ChildProcess
  readonly #lines: AsyncIterator<string>
  readonly #witness: Server
  /** What answers had that the contract does not allow. */
  readonly offences: readonly string[]

  private constructor(
    child: ChildProcess,
    lines: AsyncIterator<string>,
    witness: Server,
    offences: readonly string[],
  ) {
    this.#child = child
    this.#lines = lines
    this.#witness = witness
    this.offences = offences
  }

  /** Why there is none here, or false. */
  static missing(): string | false {
    const { status } = spawnSync(PYTHON, ['-c', 'import openstackclient.shell, openstack'])
    return status === 0
      ? false
      : 'openstack is not installed: apt-get install python3-openstackclient'
  }

  static async start(credentials: Credentials): Promise<OpenStack> {
    const offences: string[] = []
    const witness = createServer((incoming, answer) => {
      const { method = 'GET', url: path = '/', headers } = incoming
      const outgoing = request(credentials.url + path, { method, headers }, (reply) => {
        void text(reply).then((body) => {
          const status = reply.statusCode ?? 0
          offences.push(...offencesOf({ method, path, status, headers: reply.headers, body }))
          answer.writeHead(status, reply.headers).end(body)
        })
      })
      outgoing.on('error', (error) => answer.destroy(error))
      incoming.pipe(outgoing)
    })
    witness.listen(0, '127.0.0.1')
    await once(witness, 'listening')
    const address = witness.address()
    assert.ok(typeof address === 'object' && address !== null)
    const child = spawn(PYTHON, ['-c', DRIVER], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: {
        PATH: process.env['PATH'] ?? '',
        HOME: '/nonexistent',
        OS_AUTH_URL: `http://127.0.0.1:${address.port}/v3`,
        OS_USERNAME: credentials.user,
        OS_PASSWORD: credentials.password,
        OS_PROJECT_NAME: credentials.project_name,
        OS_USER_DOMAIN_NAME: credentials.domain,
        OS_PROJECT_DOMAIN_NAME: credentials.domain,
        OS_REGION_NAME: credentials.region,
        OS_IDENTITY_API_VERSION: '3',
      },
    })
    assert.ok(child.stdout !== null)
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    assert.equal((await lines.next()).value, 'ready')
    return new OpenStack(child, lines, witness, offences)
  }

  /** `openstack ARGS`, as if typed. */
  async run(...argv: string[]): Promise<Ran> {
    return await this.#ask({ argv })
  }

  /** The same, which must succeed. */
  async ok(...argv: string[]): Promise<string> {
    const { code, out, err } = await this.run(...argv)
    assert.equal(code, 0, `openstack ${argv.join(' ')}: ${err}`)
    return out
  }

  /** The same with `-f json`. */
  // oxlint-disable-next-line typescript/no-explicit-any -- what commands print has many shapes
  async json(...argv: string[]): Promise<any> {
    return JSON.parse(await this.ok(...argv, '-f', 'json')) as unknown
  }

  /** Runs Python with openstacksdk; what it prints is JSON. */
  // oxlint-disable-next-line typescript/no-explicit-any -- what scripts print has many shapes
  async sdk(script: string): Promise<any> {
    const { code, out, err } = await this.#ask({ script })
    assert.equal(code, 0, err)
    return JSON.parse(out) as unknown
  }

  async #ask(wanted: object): Promise<Ran> {
    this.#child.stdin?.write(`${JSON.stringify(wanted)}\n`)
    const line = await this.#lines.next()
    assert.ok(line.done !== true, 'the interpreter ended')
    return JSON.parse(line.value) as Ran
  }

  async stop(): Promise<void> {
    this.#child.stdin?.end()
    if (this.#child.exitCode === null) await once(this.#child, 'exit')
    this.#witness.closeAllConnections()
    this.#witness.close()
  }
}

interface Answered {
  readonly method: string
  readonly path: string
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

function offencesOf({ method, path, status, headers, body }: Answered): string[] {
  const { contract, canonical } = contractOf(path)
  const found = violations(contract, {
    method,
    path: canonical,
    status,
    headers,
    text: body,
  })
  // Clients try addresses that no contract has; there a 404 is what they want. Others go beyond it, see docs/compatibility.
  const unknown = found.some((one) => one.endsWith('is not in the contract'))
  if (unknown && (status === 404 || BEYOND.test(canonical))) return []
  return found.map((one) => `${method} ${path} → ${status}: ${one}`)
}

function contractOf(path: string): {
  readonly contract: ContractName
  readonly canonical: string
} {
  if (/^\/v3(\/auth\/|\/?$)/.test(path)) return { contract: 'iam', canonical: path }
  if (path.includes('/os-vendor-replication')) return { contract: 'evs', canonical: path }
  // Disks are described closely under version 2, and images without the service's prefix.
  if (path.startsWith('/v3/')) {
    return { contract: 'evs', canonical: path.replace('/v3/', '/v2/') }
  }
  return { contract: 'compute', canonical: path.replace(/^\/image\/v2\//, '/v2/') }
}

const BEYOND =
  /^\/v2\.1\/[^/]+\/servers\/[^/]+\/(metadata|tags)|^\/v2\.0\/|^\/v2\/[^/]+\/(volumes|snapshots)\/[^/]+\/metadata|^\/v2(\.1)?\/[^/]+\/limits/
