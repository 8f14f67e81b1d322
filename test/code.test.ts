/** The code about the code: borders between modules, what may touch the world, words that may not appear. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative, sep } from 'node:path'
import { test } from 'node:test'

const root = join(import.meta.dirname, '..')

/** The module that a file under src/ belongs to, as in the table below. */
function moduleOf(path: string): string {
  const parts = relative(join(root, 'src'), path).split(sep)
  const [top = '', second = ''] = parts
  if (parts.length === 1) return top
  if ((top === 'control' || top === 'agent') && parts.length > 2) return `${top}/${second}`
  if (top === 'control' || top === 'agent') return `${top}/root`
  return top
}

/** What each module may import besides itself. Anything not listed is forbidden. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  base: [],
  domain: ['base'],
  wire: ['base'],
  client: ['base', 'wire'],
  vault: ['base'],
  'control/store': ['base', 'domain'],
  'control/identity': ['base', 'control/store'],
  'control/resources': ['base', 'domain', 'control/store'],
  'control/sites': ['base', 'domain', 'wire', 'control/store', 'control/root'],
  'control/operations': [
    'base',
    'domain',
    'wire',
    'control/store',
    'control/resources',
    'control/sites',
  ],
  'control/api': [
    'base',
    'domain',
    'wire',
    'control/identity',
    'control/store',
    'control/resources',
    'control/sites',
    'control/operations',
  ],
  'control/root': [
    'base',
    'domain',
    'wire',
    'control/identity',
    'control/store',
    'control/resources',
    'control/sites',
    'control/operations',
    'control/api',
  ],
  'agent/volumes': ['base'],
  'agent/nbd': ['base', 'wire', 'agent/volumes'],
  'agent/heartbeat': ['base', 'wire'],
  'agent/snapshots': ['base', 'agent/volumes'],
  'agent/divergence': ['base', 'wire', 'agent/volumes', 'agent/snapshots'],
  'agent/replication': [
    'base',
    'wire',
    'domain',
    'agent/volumes',
    'agent/nbd',
    'agent/snapshots',
    'agent/divergence',
  ],
  'agent/compute': ['base', 'wire', 'agent/volumes'],
  'agent/images': [
    'base',
    'wire',
    'agent/volumes',
    'agent/nbd',
    'agent/compute',
    'agent/replication',
  ],
  'agent/backup': [
    'base',
    'wire',
    'vault',
    'agent/volumes',
    'agent/nbd',
    'agent/snapshots',
    'agent/replication',
  ],
  'agent/root': [
    'base',
    'wire',
    'vault',
    'agent/volumes',
    'agent/nbd',
    'agent/snapshots',
    'agent/divergence',
    'agent/heartbeat',
    'agent/replication',
    'agent/compute',
    'agent/images',
    'agent/backup',
  ],
  cli: ['base', 'client', 'vault'],
  'main.ts': ['base', 'cli', 'control/root', 'agent/root', 'client'],
}

const sources = globSync('src/**/*.ts', { cwd: root }).map((path) => join(root, path))
const product = sources.filter((path) => !/\.(test|contract)\.ts$/.test(path))

function importsOf(path: string): string[] {
  const text = readFileSync(path, 'utf8')
  const found = text.matchAll(
    /(?:^|\n)\s*(?:import|export)\s[^'"`;]*?from\s+['"]([^'"]+)['"]|import\(\s*['"]([^'"]+)['"]\s*\)|(?:^|\n)import\s+['"]([^'"]+)['"]/g,
  )
  return [...found].map((match) => match[1] ?? match[2] ?? match[3] ?? '')
}

function target(from: string, specifier: string): string | null {
  if (specifier.startsWith('#')) return join(root, 'src', specifier.slice(1))
  if (specifier.startsWith('.')) return normalize(join(dirname(from), specifier))
  return null
}

function borderFaults(files: { path: string; imports: string[] }[]): string[] {
  return files.flatMap(({ path, imports }) =>
    imports.flatMap((specifier) => {
      const to = target(path, specifier)
      if (to === null) return []
      const [here, there] = [moduleOf(path), moduleOf(to)]
      if (here === there) return []
      const say = `${relative(root, path)} imports ${specifier}`
      if (!to.startsWith(join(root, 'src'))) return [`${say}: outside src`]
      if (!MAY_IMPORT[here]?.includes(there)) return [`${say}: ${here} may not import ${there}`]
      if (specifier.startsWith('.')) return [`${say}: spell imports across modules with #`]
      return []
    }),
  )
}

test('no module imports across a forbidden border', () => {
  assert.deepEqual(borderFaults(product.map((path) => ({ path, imports: importsOf(path) }))), [])
})

test('the border check finds planted violations', () => {
  const planted = [
    { path: join(root, 'src/agent/nbd/x.ts'), imports: ['#control/store/store.ts'] },
    { path: join(root, 'src/domain/x.ts'), imports: ['#wire/nbd/constants.ts'] },
    { path: join(root, 'src/control/api/sdrs/x.ts'), imports: ['#agent/volumes/volume.ts'] },
    { path: join(root, 'src/cli/x.ts'), imports: ['../control/control.ts'] },
    { path: join(root, 'src/base/x.ts'), imports: ['../../test/code.test.ts'] },
    { path: join(root, 'src/agent/nbd/y.ts'), imports: ['../volumes/volume.ts'] },
  ]
  assert.equal(borderFaults(planted).length, planted.length)
})

test('dialects never import each other', () => {
  const dialects = [
    'sdrs',
    'evs',
    'csbs',
    'karbor',
    'iam',
    'native',
    'nova',
    'ecs',
    'vpc',
    'neutron',
    'glance',
  ]
  const faults = product.flatMap((path) => {
    const here = dialects.find((name) => path.includes(`/control/api/${name}/`))
    if (here === undefined) return []
    return importsOf(path)
      .map((specifier) => target(path, specifier) ?? '')
      .filter((to) =>
        dialects.some((name) => name !== here && to.includes(`/control/api/${name}/`)),
      )
      .map((to) => `${relative(root, path)} -> ${relative(root, to)}`)
  })
  assert.deepEqual(faults, [])
})

test('the pure modules touch no time, chance, disk or network of their own', () => {
  const pure = product.filter((path) => /\/src\/(domain|wire)\//.test(path))
  const faults = pure.flatMap((path) => {
    const text = readFileSync(path, 'utf8').replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')
    return [
      'Date.now',
      'Math.random',
      'setTimeout',
      'setInterval',
      'node:fs',
      'node:net',
      'node:tls',
      'node:child_process',
      'performance.now',
    ]
      .filter((word) => text.includes(word))
      .map((word) => `${relative(root, path)} uses ${word}`)
  })
  assert.deepEqual(faults, [])
})

test('only adapters, implementations and composition roots read the clock or make chance', () => {
  const allowed = /\/src\/(base\/|cli\/|client\/|main\.ts|control\/control\.ts|agent\/agent\.ts)/
  const faults = product
    .filter((path) => !allowed.test(path))
    .flatMap((path) => {
      const text = readFileSync(path, 'utf8').replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')
      return ['Date.now(', 'Math.random(']
        .filter((word) => text.includes(word))
        .map((word) => `${relative(root, path)} uses ${word})`)
    })
  assert.deepEqual(faults, [])
})

test('every import names a file that exists', () => {
  const faults = sources.flatMap((path) =>
    importsOf(path)
      .map((specifier) => ({ specifier, to: target(path, specifier) }))
      .filter(({ to }) => to !== null && !existsSync(to))
      .map(({ specifier }) => `${relative(root, path)} imports ${specifier}`),
  )
  assert.deepEqual(faults, [])
})

test('fault codes are unique, and docs/errors.md lists each of them', () => {
  const seen = new Map<string, string>()
  const faults: string[] = []
  for (const path of product) {
    for (const match of readFileSync(path, 'utf8').matchAll(
      /= fault\(\{\s*code: '([A-Z_0-9]+)'/g,
    )) {
      const code = match[1] ?? ''
      if (seen.has(code))
        faults.push(`${code} is defined in ${seen.get(code)} and ${relative(root, path)}`)
      seen.set(code, relative(root, path))
    }
  }
  const page = readFileSync(join(root, 'docs/errors.md'), 'utf8')
  for (const code of seen.keys())
    if (!page.includes(`\`${code}\``))
      faults.push(`${code} is not in docs/errors.md: run \`npm run docs\``)
  assert.deepEqual(faults, [])
})

test('nothing marks itself unfinished, silences a check, or is skipped without a reason', () => {
  const tracked = execFileSync(
    'git',
    ['ls-files', '--', 'src', 'sim', 'test', 'bench', 'scripts'],
    { cwd: root, encoding: 'utf8' },
  )
  const marks = [
    /\b(TO[D]O|FIX[M]E|X{3})\b/,
    /@ts-(ignore|nocheck|expect-error)/,
    /(eslint|oxlint)-disable(?!.*--)/,
    /\.only\(/,
  ]
  const faults = tracked
    .split('\n')
    .filter((path) => path.endsWith('.ts') && path !== 'test/code.test.ts')
    .flatMap((path) => {
      const text = existsSync(join(root, path)) ? readFileSync(join(root, path), 'utf8') : ''
      return marks.filter((mark) => mark.test(text)).map((mark) => `${path}: ${mark}`)
    })
  assert.deepEqual(faults, [])
})
