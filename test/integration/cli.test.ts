import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { test, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { agentConfig, agentOptions } from '#agent/config.ts'
import { resolveOptions } from '#base/config.ts'
import { optionsPage } from '#cli/options-page.ts'
import { parseCredentials } from '#client/credentials.ts'
import { controlConfig, controlOptions } from '#control/config.ts'

/* The command line as a user sees it: help, errors, exit codes, `init`, and the configuration page. */

const BINARY = fileURLToPath(new URL('../../bin/holdfast', import.meta.url))

interface Ended {
  readonly code: number
  readonly out: string
  readonly err: string
}

async function holdfast(args: readonly string[], env: Record<string, string> = {}): Promise<Ended> {
  const { PATH } = process.env
  const child = spawn(BINARY, args, {
    cwd: tmpdir(),
    env: { PATH, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let out = ''
  let err = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
  const [code] = (await once(child, 'close')) as [number]
  return { code, out, err }
}

async function directory(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'holdfast-cli-'))
  t.after(() => rm(path, { recursive: true, force: true }))
  return path
}

test('the configuration page is what the option tables say (`npm run docs` writes it)', async () => {
  const page = await readFile(
    new URL('../../docs/operating/configuration.md', import.meta.url),
    'utf8',
  )
  const expected = optionsPage([
    {
      command: 'holdfast control',
      about: 'The control plane of one region.',
      options: controlOptions,
    },
    { command: 'holdfast agent', about: 'The agent of one site.', options: agentOptions },
  ])
  assert.equal(page, expected)
})

test('help is on standard output, and names every command', async () => {
  const { code, out, err } = await holdfast(['--help'])
  assert.equal(code, 0)
  assert.equal(err, '')
  for (const command of 'up demo init site volume group pair job token state control agent'.split(
    ' ',
  )) {
    assert.match(out, new RegExp(`^  ${command}\\b`, 'm'), command)
  }
})

test('a slip in a command or flag is answered with the likely word, and exit code 2', async () => {
  const command = await holdfast(['grop', 'list'])
  assert.equal(command.code, 2)
  assert.match(command.err, /unknown command 'grop'.*\(Did you mean group\?\)/s)
  const flag = await holdfast(['volume', 'list', '--regoin', 'x'])
  assert.equal(flag.code, 2)
  assert.match(flag.err, /unknown option '--regoin'.*\(Did you mean --region\?\)/s)
  const missing = await holdfast(['volume', 'create', 'x', '--size', '1'])
  assert.equal(missing.code, 2)
  assert.match(missing.err, /required option '--site <name>'/)
})

test('without credentials a command says where it looked and how to give them', async () => {
  const { code, err } = await holdfast(['group', 'list'])
  assert.equal(code, 2)
  assert.match(err, /--data DIR.*--credentials FILE.*OS_AUTH_URL/)
})

test('with --json an error is one JSON line on standard error, with the exit code of the process', async () => {
  const env = {
    OS_AUTH_URL: 'http://127.0.0.1:9/v3',
    OS_USERNAME: 'u',
    OS_PASSWORD: 'hunter2',
    OS_PROJECT_NAME: 'p',
  }
  const { code, out, err } = await holdfast(['volume', 'list', '--json'], env)
  assert.equal(code, 3)
  assert.equal(out, '')
  const error = JSON.parse(err) as Record<string, unknown>
  assert.equal(error['event'], 'error')
  assert.equal(error['code'], 'API_UNREACHABLE')
  assert.equal(error['exit'], 3)
  assert.match(String(error['text']), /http:\/\/127\.0\.0\.1:9\/v3\/auth\/tokens/)
  assert.ok(!err.includes('hunter2'))
})

test('a credentials file that is none is refused by name', async (t) => {
  const file = join(await directory(t), 'c.json')
  const absent = await holdfast(['volume', 'list', '--credentials', file])
  assert.equal(absent.code, 2)
  assert.match(absent.err, /c\.json does not exist/)
  await writeFile(file, '{"url": 1}')
  const wrong = await holdfast(['volume', 'list', '--credentials', file])
  assert.equal(wrong.code, 2)
  assert.match(wrong.err, /c\.json is not a credentials file/)
})

test('init writes what control plane and agents start from, and certificates that one authority signed', async (t) => {
  const out = join(await directory(t), 'pki')
  const flags = ['--region', 'north', '--control', 'ctl.example']
  const made = await holdfast([
    'init',
    '--out',
    out,
    ...flags,
    '--site',
    'az1=10.0.0.1',
    '--site',
    'az2=b.example',
  ])
  assert.equal(made.code, 0, made.err)

  const read = async (name: string) => ({
    name,
    content: JSON.parse(await readFile(join(out, name), 'utf8')) as unknown,
    resolvePath: (path: string) => resolve(dirname(join(out, name)), path),
  })
  const control = controlConfig(
    resolveOptions(controlOptions, { file: await read('control/config.json') }),
  )
  assert.equal(control.publicUrl, 'https://ctl.example:7410')
  assert.deepEqual(control.sites, ['az1', 'az2'])
  assert.equal(control.dataDir, join(out, 'control', 'data'))
  const agent = agentConfig(
    resolveOptions(agentOptions, { file: await read('az1-agent/config.json') }),
  )
  assert.equal(agent.advertiseHost, '10.0.0.1')
  assert.equal(agent.controlUrl, 'https://ctl.example:7411')

  const authority = new X509Certificate(await readFile(join(out, 'authority/ca.pem')))
  for (const [pki, name, host] of [
    [control.pki, 'CN=control:north', 'ctl.example'],
    [agent.pki, 'CN=agent:az1:az1-agent', '10.0.0.1'],
  ] as const) {
    const certificate = new X509Certificate(await readFile(pki.cert))
    assert.equal(certificate.subject, name)
    assert.ok(certificate.verify(authority.publicKey))
    assert.ok(certificate.checkHost(host) ?? certificate.checkIP(host))
    assert.equal((await stat(pki.key)).mode & 0o777, 0o600)
  }
  for (const secret of ['credentials.json', 'control/bootstrap.json', 'az2-agent/link.key']) {
    assert.equal((await stat(join(out, secret))).mode & 0o777, 0o600, secret)
  }
  const credentials = parseCredentials(
    JSON.parse(await readFile(join(out, 'credentials.json'), 'utf8')),
  )
  const bootstrap = (await read('control/bootstrap.json')).content as Record<string, unknown>
  assert.equal(credentials?.password, bootstrap['password'])
})

test('init again changes nothing, --renew only certificates, and edited configurations stay', async (t) => {
  const out = join(await directory(t), 'pki')
  const first = [
    'init',
    '--out',
    out,
    '--json',
    '--control',
    'c.example',
    '--site',
    'az1=a.example',
  ]
  assert.equal((await holdfast(first)).code, 0)
  await writeFile(join(out, 'control/config.json'), '{"edited": true}')
  await rm(join(out, 'control/bootstrap.json'))
  const again = await holdfast(['init', '--out', out, '--json'])
  assert.deepEqual((JSON.parse(again.out) as { files: string[] }).files, [])
  const renewed = await holdfast(['init', '--out', out, '--json', '--renew'])
  assert.deepEqual((JSON.parse(renewed.out) as { files: string[] }).files, [
    'control/part.key',
    'control/part.pem',
    'az1-agent/part.key',
    'az1-agent/part.pem',
  ])
  assert.equal(await readFile(join(out, 'control/config.json'), 'utf8'), '{"edited": true}')
})

test('init refuses answers that it cannot use', async (t) => {
  const out = join(await directory(t), 'pki')
  const cases: [string[], RegExp][] = [
    [[], /was not initialized yet, so --control and --site are required/],
    [['--site', 'az1=a'], /--control is required/],
    [['--control', 'c'], /--site is required/],
    [['--control', 'c', '--site', 'az1'], /--site "az1" is not accepted, accepted: NAME=HOST/],
    [['--control', 'c', '--site', 'a=x', '--site', 'a=y'], /a site is named twice/],
    [['--control', 'c', '--site', 'a=x', '--region', '-'], /--region "-" is not accepted/],
  ]
  for (const [flags, expected] of cases) {
    const { code, err } = await holdfast(['init', '--out', out, ...flags])
    assert.equal(code, 2, flags.join(' '))
    assert.match(err, expected)
  }
})
