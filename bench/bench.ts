// SPDX-License-Identifier: Apache-2.0

// Ours beside upstream's current Go plugins and the bare work of the kernel, in one run: `lab/peers bench` with a node of
// its own per side, the sides taking turns. Needs root, and Go for the peers.

import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { judge, type Verdict } from './goals.ts'
import { judgeMains, type MainCase, mainCases, mainLines, mainSides } from './mains.ts'
import { type Cell, mergeCells, type SideName, sideNames } from './measured.ts'
import { goalLines, growthTable, latencyTable } from './report.ts'
import { BATCH, cloudIpam, judgeReserve, reserveLines, reserveSides, startCloud } from './reserve.ts'

const USAGE = `usage: mooring bench [--quick] [OPTION]...

ADD and DEL of veth-route + host-local through the agent, beside current Go ptp + host-local, and beside a C program that
sends the same messages and does nothing else ("bare work"); then without agent, a process of Node.js for each call.
Exit code 1 where a goal is missed.

  --quick           0 and 200 pods, half of each ratio: what CI runs (about 2 minutes; the whole run takes about 20)
  --at LIST         pods present while measuring (default 0,100,500,1000)
  --parallel LIST   calls at once (default 1,32)
  --rounds N        rounds per cell, the sides taking turns (default 4; quick 5, of --mains and --reserve 3)
  --sides LIST      of: ${Object.keys(sideNames).join(', ')} (default all; quick without ptpMasqNft)
  --mains LIST      instead of all that: these plugins and upstream's of the same name, each beside the other, at 0 pods;
                    of: ${mainCases.map(({ name }) => name).join(', ')}, or all
  --reserve         instead of all that: veth-route with addresses of Neutron from the reserve, beside host-local
  --json FILE       keep everything that was measured`

const root = resolve(import.meta.dirname, '..')
/** What must be reached of each ratio; this release reaches about two thirds of the smallest. */
const QUICK_STRICTNESS = 0.5
/** A quick run of `--mains` asks for less: macvlan reaches about half, and a check at that edge would flicker. */
const MAINS_QUICK_STRICTNESS = 0.35
/** Measured in a run of its own, one call after the other and without other pods: nobody has many without an agent. */
const APART: readonly (keyof typeof sideNames)[] = ['oneShot']
/** One ping after every so many ADDs, at once: 5 % of the calls. */
const ECHO_EVERY = 20
/** As in the network of lab/peers' examples. */
const IPAM = { type: 'host-local', subnet: '10.99.0.0/16', routes: [{ dst: '0.0.0.0/0' }] }
/**
 * A node with an address and a default route, so that there is an uplink to answer ARP on; and the pods' gateway on the
 * segment, for those who reach it there.
 */
const UPLINK =
  'ip address add 172.30.0.1/24 dev uplink; ip route add default via 172.30.0.2; ip -n outside address add 10.99.0.1/16 dev uplink'

function readArguments() {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      at: { type: 'string' },
      parallel: { type: 'string' },
      rounds: { type: 'string' },
      sides: { type: 'string' },
      mains: { type: 'string' },
      reserve: { type: 'boolean', default: false },
      json: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  })
  const sides = values.sides?.split(',') ?? Object.keys(sideNames).filter(key => !values.quick || key !== 'ptpMasqNft')
  const unknown = sides.find(key => !Object.hasOwn(sideNames, key))
  if (unknown !== undefined) throw new Error(`there is no side "${unknown}"`)
  const mains = values.mains === undefined ? undefined : casesOf(values.mains)
  return {
    help: values.help,
    quick: values.quick,
    mains,
    reserve: values.reserve,
    at: values.at ?? (mains !== undefined || values.reserve ? '0' : values.quick ? '0,200' : '0,100,500,1000'),
    parallel: values.parallel ?? (mains === undefined ? '1,32' : '1'),
    // A fresh agent's first calls are not yet compiled: with few rounds they would be most of what is measured.
    rounds: values.rounds ?? (!values.quick ? '4' : mains === undefined && !values.reserve ? '5' : '3'),
    sides: sides as (keyof typeof sideNames)[],
    json: values.json,
  }
}

/** The cases that a list names. */
function casesOf(list: string): readonly MainCase[] {
  if (list === 'all') return mainCases
  return list.split(',').map(name => {
    const found = mainCases.find(each => each.name === name)
    if (found === undefined) throw new Error(`there is no plugin "${name}" to measure`)
    return found
  })
}

/** What `lab/peers bench` is told of each side. */
function sideArguments(key: keyof typeof sideNames, directory: string): string[] {
  const name = ['--name', sideNames[key] satisfies SideName]
  switch (key) {
    case 'ours':
    case 'oursMasq':
      return [...ourSide(directory, key === 'oursMasq'), ...name]
    case 'ptp':
      return ['--conflist', 'example:ptp', ...name]
    case 'ptpMasq':
      return ['--conflist', 'example:ptp-masq', ...name]
    case 'ptpMasqNft':
      return ['--conflist', 'example:ptp-masq-nft', ...name]
    case 'bare':
      return [...bareSide(directory), ...name]
    case 'oneShot':
      return [...oneShotSide(directory), ...name]
  }
}

const ourSide = (directory: string, ipMasq: boolean): string[] =>
  agentSide(directory, ipMasq ? 'ours-masq' : 'ours', { type: 'veth-route', ipMasq, ipam: IPAM })

/** Ours and upstream's plugin of the same name, with the same configuration. */
function mainArguments(each: MainCase, directory: string): string[] {
  const { ours, theirs } = mainSides(each)
  const plugin = { ...each.plugin, ipam: IPAM }
  return [
    ...[...agentSide(directory, `our-${each.name}`, plugin), '--name', ours],
    ...['--conflist', writeConflist(directory, `go-${each.name}`, plugin), '--prepare', UPLINK, '--name', theirs],
  ]
}

/** The same plugin with addresses of a file and of a cloud. */
function reserveArguments(directory: string): string[] {
  const clouds = startCloud(join(root, 'mooring'), '/run/clouds.yaml')
  return [
    ...[...agentSide(directory, 'file', { type: 'veth-route', ipam: IPAM }), '--name', reserveSides.file],
    ...[
      ...agentSide(directory, 'cloud', { type: 'veth-route', ipam: cloudIpam }, clouds),
      '--name',
      reserveSides.cloud,
    ],
  ]
}

/** A side whose plugin is one of ours, served by an agent. @param before a shell's commands before it starts */
function agentSide(directory: string, name: string, plugin: object, before = ''): string[] {
  const bin = join(directory, 'ours')
  const settings = join(directory, 'mode')
  const socket = '/run/mooring/agent.sock'
  mooring('install', '--cni-bin', bin, '--mode', 'agent', '--config', settings, '--socket', socket)
  const conflist = writeConflist(directory, name, plugin)
  const agent = [join(root, 'mooring'), 'agent', '--log-level', 'error']
  return [
    ...['--conflist', conflist, '--path', bin],
    ...['--prepare', `${UPLINK}; mkdir -p /etc/mooring; cp ${settings} /etc/mooring/mode`],
    ...['--start', `${before} exec ${agent.join(' ')}`, '--ready', socket],
  ]
}

/** The same plugins without agent: a process of Node.js for each call. */
function oneShotSide(directory: string): string[] {
  const bin = join(directory, 'one-shot')
  const settings = join(directory, 'one-shot-mode')
  mooring('install', '--cni-bin', bin, '--mode', 'standalone', '--config', settings)
  return [
    ...['--conflist', writeConflist(directory, 'one-shot', { type: 'veth-route', ipam: IPAM }), '--path', bin],
    ...['--prepare', `${UPLINK}; mkdir -p /etc/mooring; cp ${settings} /etc/mooring/mode`],
  ]
}

function bareSide(directory: string): string[] {
  const bin = join(directory, 'bare')
  mkdirSync(bin, { recursive: true })
  const program = join(bin, 'bare')
  execFileSync(process.env['CC'] ?? 'cc', ['-O2', '-static', '-o', program, join(root, 'bench/bare.c')])
  const nextHop = 'ip address add 169.254.1.1/32 dev lo scope link; sysctl -qw net.ipv4.ip_forward=1'
  return [
    ...['--conflist', writeConflist(directory, 'bare', { type: 'bare' }), '--path', bin],
    ...['--prepare', `${UPLINK}; ${nextHop}; ${program} setup`, '--elapsed', 'workMicroseconds'],
  ]
}

function writeConflist(directory: string, name: string, plugin: object): string {
  const file = join(directory, `${name}.conflist`)
  writeFileSync(file, JSON.stringify({ cniVersion: '1.0.0', name: 'podnet', plugins: [plugin] }))
  return file
}

const mooring = (...args: string[]) =>
  execFileSync(join(root, 'mooring'), args, { stdio: ['ignore', 'ignore', 'inherit'] })

/** Runs the harness; its progress goes to stderr as it comes, its own table is shown only when it fails. */
async function measure(args: readonly string[]): Promise<string> {
  const child = spawn(join(root, 'lab/peers'), ['bench', ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  const stop = (signal: NodeJS.Signals) => child.kill(signal)
  process.on('SIGINT', stop).on('SIGTERM', stop)
  let output = ''
  for await (const chunk of child.stdout.setEncoding('utf8')) output += chunk
  const code = await new Promise<number | null>(done =>
    child.exitCode === null ? child.once('close', done) : done(child.exitCode),
  )
  process.off('SIGINT', stop).off('SIGTERM', stop)
  if (code !== 0) throw new Error(`lab/peers bench failed with exit code ${code}:\n${output}`)
  return output
}

/** Prints what was reached. @returns the exit code */
function conclude(verdicts: readonly Verdict[]): number {
  console.log(goalLines(verdicts))
  const missed = verdicts.filter(({ met }) => !met).length
  console.log(missed === 0 ? '\nall goals met' : `\n${missed} of ${verdicts.length} goals missed`)
  return missed === 0 ? 0 : 1
}

async function main(): Promise<number> {
  const options = readArguments()
  if (options.help) {
    console.log(USAGE)
    return 0
  }
  if (process.getuid?.() !== 0) throw new Error('needs root for network namespaces. Remedy: sudo ./mooring bench')
  const directory = mkdtempSync(join(tmpdir(), 'mooring-bench-'))
  try {
    const { mains, at, parallel } = options
    const run = async (sides: readonly string[], cells: readonly string[], json: string) => {
      const common = ['--rounds', options.rounds, '--echo', String(ECHO_EVERY), '--json', json]
      const output = await measure([...sides, ...cells, ...common])
      return { output, cells: (JSON.parse(readFileSync(json, 'utf8')) as { cells: Cell[] }).cells }
    }
    const json = options.json ?? join(directory, 'measured.json')
    const strictness = options.quick ? QUICK_STRICTNESS : 1
    if (options.reserve) {
      const cells = ['--at', at, '--parallel', '1', '--batch', String(BATCH)]
      const measured = await run(reserveArguments(directory), cells, json)
      console.log(`\nmedian / p99 in ms, exec to exit\n\n${reserveLines(measured.cells)}\n`)
      return conclude(judgeReserve(measured.cells))
    }
    if (mains !== undefined) {
      const sides = mains.flatMap(each => mainArguments(each, directory))
      const batch = options.quick ? ['--batch', '16'] : []
      const { cells } = await run(sides, ['--at', at, '--parallel', parallel, ...batch], json)
      console.log(`\nmedian / p99 in ms, exec to exit\n\n${mainLines(cells, mains)}\n`)
      return conclude(judgeMains(cells, mains, options.quick ? MAINS_QUICK_STRICTNESS : 1))
    }
    const [apart, beside] = [true, false].map(isApart => options.sides.filter(key => APART.includes(key) === isApart))
    const argumentsOf = (keys: readonly (keyof typeof sideNames)[]) =>
      keys.flatMap(key => sideArguments(key, directory))
    const runs: Awaited<ReturnType<typeof run>>[] = []
    if (beside!.length > 0) runs.push(await run(argumentsOf(beside!), ['--at', at, '--parallel', parallel], json))
    if (apart!.length > 0)
      runs.push(await run(argumentsOf(apart!), ['--at', '0', '--parallel', '1'], join(directory, 'apart.json')))
    const cells = runs.map(each => each.cells).reduce(mergeCells)
    const output = runs.map(each => each.output).join('\n')
    console.log(
      '\nmedian / p99 in ms, exec to exit; bare work: the messages alone. *: other work kept the machine busy\n',
    )
    console.log(latencyTable(cells))
    console.log(`\n${growthTable(cells)}\n`)
    for (const line of output.split('\n')) if (/leak check|pings right after/.test(line)) console.log(line)
    console.log()
    return conclude(judge(cells, strictness))
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

try {
  process.exitCode = await main()
} catch (error) {
  console.error(`mooring bench: ${(error as Error).message}`)
  process.exitCode = 2
}
