/**
 * Everything that has to hold, in the order in which a failure is cheapest to see:
 *
 *     npm test                    all stages
 *     npm test -- unit            one or more stages by name
 *     npm test -- --only PATH     just these test files
 *
 * Exits with 0 only when every stage passed; a stage that fails does not hide the later ones.
 */
import { spawn } from 'node:child_process'
import { globSync } from 'node:fs'
import { resolve } from 'node:path'

const bin = (name: string) => `node_modules/.bin/${name}`
const files = (...patterns: string[]) => patterns.flatMap((pattern) => globSync(pattern)).sort()

/** A run starts a thousand processes of the same code: the first of them compiles it. The directory is that of bin/holdfast. */
const ENV = { NODE_COMPILE_CACHE: resolve('node_modules/.cache/holdfast'), ...process.env }

const nodeTest = (concurrency: number, paths: string[]) => [
  process.execPath,
  '--test',
  `--test-concurrency=${concurrency}`,
  '--test-reporter=spec',
  '--test-timeout=600000',
  ...paths,
]

/** One at a time: files that judge how long something takes or make a load of a certain size, and those whose two sites have leases of a
 *  second and a half. All others of test/integration wait more than they compute and judge states alone: two at a time. */
const ALONE =
  `arbitration automatic-failover busy demo disk-damage disk-failure disk-full nbd preflight rebuild replication
  replication-resync sdrs-wide servers servers-walk torture up up-real verify volume-limits`
    .split(/\s+/)
    .map((name) => `test/integration/${name}.test.ts`)
const isAlone = (path: string) => ALONE.includes(path)

const stages: Record<string, () => string[]> = {
  types: () => [bin('tsc'), '--noEmit'],
  lint: () => [bin('oxlint'), '--type-aware', '--deny-warnings'],
  format: () => [bin('biome'), 'format', '.'],
  unit: () => nodeTest(2, files('src/**/*.test.ts', 'sim/**/*.test.ts', 'bench/**/*.test.ts')),
  code: () => nodeTest(2, files('test/*.test.ts', 'test/contracts/**/*.test.ts')),
  sharing: () =>
    nodeTest(
      2,
      files('test/integration/**/*.test.ts').filter((path) => !isAlone(path)),
    ),
  integration: () => nodeTest(1, ALONE),
}

async function main(args: string[]): Promise<number> {
  const only = args.indexOf('--only')
  if (only >= 0) return await run('only', nodeTest(1, args.slice(only + 1)))
  const unknown = args.filter((name) => !(name in stages))
  if (unknown.length > 0) {
    console.error(
      `unknown stage ${unknown.join(', ')}; stages are ${Object.keys(stages).join(', ')}`,
    )
    return 2
  }
  const chosen = args.length > 0 ? args : Object.keys(stages)
  const results: { name: string; code: number; seconds: number }[] = []
  for (const name of chosen) {
    const started = performance.now()
    const code = await run(name, stages[name]?.() ?? [])
    results.push({ name, code, seconds: Math.round((performance.now() - started) / 100) / 10 })
  }
  console.log('\nstage         result  seconds')
  for (const { name, code, seconds } of results) {
    console.log(`${name.padEnd(14)}${code === 0 ? 'passed' : 'FAILED'}  ${seconds}`)
  }
  const failed = results.filter((result) => result.code !== 0).length
  console.log(`\n${results.length - failed} passed, ${failed} failed`)
  return failed === 0 ? 0 : 1
}

function run(name: string, [program, ...args]: string[]): Promise<number> {
  if (program === undefined) throw new Error(`stage ${name} has no program`)
  console.log(`\n== ${name}`)
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'inherit', 'inherit'], env: ENV })
    child.once('error', reject)
    child.once('exit', (code, signal) => resolve(code ?? (signal === null ? 1 : 128)))
  })
}

process.exitCode = await main(process.argv.slice(2))
