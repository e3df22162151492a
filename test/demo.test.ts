// SPDX-License-Identifier: Apache-2.0
// Promise: `mooring demo` shows pods on Neutron's addresses by real packets, says by its exit code whether everything was
// as promised, and leaves the machine as it found it, however it ends. Method: the command as a user types it, under names
// of its own. Needs root; with lab/openstack at hand the same against the real services.
import assert from 'node:assert/strict'
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const root = fileURLToPath(new URL('..', import.meta.url))
const entry = `${root}src/bin/mooring.ts`
const skip = process.getuid?.() === 0 ? false : 'needs root'
const run = promisify(execFile)

type Ended = { code: number | null; stdout: string; stderr: string }
type Demo = { child: ChildProcess; said: (text: string) => Promise<void>; ended: Promise<Ended> }

function start(name: string, ...args: string[]): Demo {
  const child = spawn(process.execPath, [entry, 'demo', '--name', name, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const output = { stdout: '', stderr: '' }
  const waiting: (() => void)[] = []
  for (const stream of ['stdout', 'stderr'] as const)
    child[stream]!.setEncoding('utf8').on('data', (text: string) => {
      output[stream] += text
      for (const look of waiting) look()
    })
  const ended = new Promise<Ended>(resolve => child.once('close', code => resolve({ code, ...output })))
  const said = (text: string) =>
    new Promise<void>((resolve, reject) => {
      const look = () => output.stderr.includes(text) && resolve()
      waiting.push(look)
      look()
      void ended.then(() => reject(new Error(`it ended before it said "${text}":\n${output.stderr}${output.stdout}`)))
    })
  return { child, said, ended }
}

/** Where the simulated cloud of a demo listens. */
const simulatorOf = (name: string) =>
  new URL(/auth_url: (\S+)/.exec(readFileSync(`/run/${name}/simulator/clouds.yaml`, 'utf8'))![1]!).origin

/** What a demo of this name has on the machine. */
function traces(name: string): string[] {
  const namespaces = existsSync('/run/netns') ? readdirSync('/run/netns').filter(each => each.startsWith(name)) : []
  const processes = readdirSync('/proc')
    .filter(each => /^\d+$/.test(each))
    .filter(pid => commandLine(pid).some(word => word.includes(`/run/${name}/`)))
  return [...namespaces, ...processes, ...(existsSync(`/run/${name}`) ? [`/run/${name}`] : [])]
}

function commandLine(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
  } catch {
    return [] // it has ended
  }
}

type Result = {
  ok: boolean
  pods: { name: string; machine: string; address: string; netns: string; addMs: number; fromReserve: boolean }[]
  paths: { what: string; from: string; to: string; passes: boolean; fault?: string; way: string[] }[]
  leftovers: string[]
  failure?: string
}

function assertAsPromised({ code, stdout, stderr }: Ended): Result {
  const result = JSON.parse(stdout) as Result
  assert.deepEqual(result.leftovers, [], stderr)
  assert.equal(result.failure, undefined)
  for (const path of result.paths)
    assert.ok(path.passes, `${path.what}: ${path.from} > ${path.to}: ${path.fault}, by ${path.way.join(' > ')}`)
  assert.equal(result.ok, true)
  assert.equal(code, 0)
  assert.equal(result.pods.length, 4)
  assert.equal(new Set(result.pods.map(({ address }) => address)).size, 4, 'every pod has an address of its own')
  return result
}

const waysOf = ({ paths }: Result) =>
  paths.map(({ way }) => way.join(' > ').replaceAll(/worker-\d/g, name => (name === 'worker-1' ? 'VM1' : 'VM2')))

const EVERY_WAY = [
  'pod-1 > VM1 > pod-2',
  'pod-1 > VM1 > VM2 > pod-3',
  'pod-3 > VM2 > VM1 > pod-1',
  'pod-1 > VM1',
  'pod-1 > VM1 > VM2',
  'VM1 > pod-1',
  'VM2 > VM1 > pod-1',
  'pod-1 > VM1 > edge > outside',
  'pod-3 > VM2 > edge > outside',
  'outside > edge > VM1 > pod-1',
]

describe('mooring demo', { skip, concurrency: false, timeout: 240_000 }, () => {
  test('with the simulated OpenStack every packet takes the promised way, and nothing is left', async () => {
    const ended = await start('mooring-test-demo', '--json').ended
    assert.deepEqual(waysOf(assertAsPromised(ended)), EVERY_WAY)
    assert.doesNotMatch(ended.stdout + ended.stderr, /password/i)
    assert.deepEqual(traces('mooring-test-demo'), [])
  })

  test('--keep leaves it standing: a pod can be taken off by the printed command, and --clean ends it', async () => {
    const name = 'mooring-test-keep'
    const { code, stdout, stderr } = await start(name, '--keep').ended
    assert.equal(code, 0, stderr + stdout)
    const command = stdout.split('\n').find(line => line.includes(' cni del '))
    assert.ok(command, `there is a command to detach a pod:\n${stdout}`)
    await run('sh', ['-ec', command])
    assert.ok(existsSync(`/run/netns/${name}-pod-1`))
    assert.match((await start(name).ended).stderr, /was kept. Remedy: mooring demo --clean --name mooring-test-keep/)
    assert.equal((await start(name, '--clean').ended).code, 0)
    assert.deepEqual(traces(name), [])
  })

  test('Ctrl-C while packets are sent ends it with 130 and leaves nothing', async () => {
    const { child, said, ended } = start('mooring-test-stop')
    await said('sending packets')
    child.kill('SIGINT')
    const { code, stdout } = await ended
    assert.equal(code, 130, stdout)
    assert.match(stdout, /Nothing is left/)
    assert.deepEqual(traces('mooring-test-stop'), [])
  })

  test('a cloud that fails ends it with the reason and 1; what was made all the same is found and deleted', async () => {
    const name = 'mooring-test-fail'
    const { said, ended } = start(name)
    await said('attaching pod-1')
    // Neutron makes the floating IP, and nobody ever learns its id.
    const fault = { act: 'answer-after', status: 403, method: 'POST', path: '/floatingips' }
    const inject = await fetch(`${simulatorOf(name)}/simulator/inject`, { method: 'POST', body: JSON.stringify(fault) })
    assert.equal(inject.status, 204)
    const { code, stdout } = await ended
    assert.equal(code, 1, stdout)
    assert.match(stdout, /Ended early: .*floating IP.*403/)
    assert.match(stdout, /Nothing is left/)
    assert.deepEqual(traces(name), [])
  })

  test('after kill -9 --clean takes everything away', async () => {
    const name = 'mooring-test-kill'
    const { child, said, ended } = start(name)
    await said('attaching pod-2')
    child.kill('SIGKILL')
    await ended
    assert.notDeepEqual(traces(name), [])
    assert.equal((await start(name, '--clean').ended).code, 0)
    assert.deepEqual(traces(name), [])
  })

  test('a cloud that no clouds.yaml has is named, with exit code 1, and nothing is left', async () => {
    const { code, stdout } = await start('mooring-test-cloud', '--cloud', 'nowhere').ended
    assert.equal(code, 1)
    assert.match(stdout, /"nowhere"/)
    assert.deepEqual(traces('mooring-test-cloud'), [])
  })

  const noLab = process.env['OSLAB_DEMO_JSON'] ? false : 'no lab: eval "$(lab/openstack env)"'
  test('--cloud does the same with a real Neutron and its own data plane', { skip: noLab }, async () => {
    const ended = await start('mooring-test-real', '--json', '--cloud', 'oslab').ended
    assert.deepEqual(waysOf(assertAsPromised(ended)), EVERY_WAY)
    assert.deepEqual(traces('mooring-test-real'), [])
  })
})
