// SPDX-License-Identifier: Apache-2.0

// Goal: `host-local` loses and gives twice no address when many come at once, when it is killed, and when the disk is full. Method:
// the installed executable, and the plugin in a process that is killed. Needs root.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { appendFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { isWholeRun } from '../whole-run.ts'
import { assertSilent, errorOf, folder, missing, root } from './harness.ts'
import { addressesOf, InProcess, mounted, Network } from './host-local.ts'

/** Each is a process: a quarter of them, but with `--all`. */
const [AT_ONCE, KILLS] = isWholeRun ? [64, 10] : [16, 3]

suite('HL host-local under load and in trouble', { skip: missing }, () => {
  test(`HL-31 ${AT_ONCE} processes at once: ${AT_ONCE} addresses, one file each, and none after ${AT_ONCE} DELs`, async () => {
    const network = new Network({ subnet: '10.1.0.0/16' })
    const ids = Array.from({ length: AT_ONCE }, (_, index) => `c${index}`)
    const outcomes = await Promise.all(ids.map(id => network.call('ADD', id)))
    assert.equal(new Set(outcomes.flatMap(addressesOf)).size, AT_ONCE)
    assert.equal(network.reserved().length, AT_ONCE)
    await Promise.all(ids.map(id => network.del(id)))
    assert.deepEqual(network.reserved(), [])
  })

  test('ROB-02 killed at any moment of ADD and DEL: DEL leaves nothing, and nobody gets a taken address', async () => {
    const network = new Network({ ranges: [[{ subnet: '10.1.0.0/16' }], [{ subnet: 'fd00::/64' }]] })
    const state = folder('state')
    let killed = 0
    for (let round = 0; round < KILLS; round++) {
      killed += await killAmid(network, state, 3 + Math.random() * 60)
      using world = new InProcess(state)
      const kept = new Set(
        network
          .reserved()
          .filter(name => !name.startsWith('.'))
          .map(name => network.owner(name)),
      )
      for (const id of [...kept].slice(0, 2)) assert.equal((await world.call(network, 'ADD', id)).rc, 1)
      const [address] = addressesOf(await world.call(network, 'ADD', 'new'))
      assert.equal(network.text(address!), 'new\r\neth0')
      for (const id of ['new', ...ids(CRASH_IDS)]) assertSilent(await world.call(network, 'DEL', id))
      assert.deepEqual(network.reserved(), [])
    }
    assert.equal(killed, KILLS)
  })

  test('ROB-06 a full file system: an error with the reason, nothing left, and DEL works', async () => {
    const network = new Network()
    await mounted(network.dataDir, 'size=16k,nr_inodes=64', async () => {
      await network.add('c1')
      const filler = join(network.dataDir, 'filler')
      assert.throws(() => appendFileSync(filler, new Uint8Array(1 << 20)), { code: 'ENOSPC' })
      const error = errorOf(await network.call('ADD', 'c2'))
      assert.equal(error.code, 5)
      assert.match(error.msg, /Cannot reserve .*10\.1\.2\.3: .*ENOSPC/)
      assert.deepEqual(network.reserved(), ['10.1.2.2'])
      assert.equal(errorOf(await network.call('STATUS', '')).code, 50)
      await network.del('c1')
      assert.deepEqual(network.reserved(), [])
      rmSync(filler)
      assert.deepEqual(await network.add('c2'), ['10.1.2.3'])
    })
    await mounted(network.dataDir, 'size=1m,nr_inodes=6', async () => {
      const outcomes = []
      for (const id of ['c1', 'c2', 'c3', 'c4', 'c5']) outcomes.push(await network.call('ADD', id))
      const failed = outcomes.filter(each => each.rc !== 0)
      assert.ok(failed.length > 0)
      for (const each of failed) assert.match(errorOf(each).msg, /ENOSPC/)
      assert.equal(network.reserved().length, outcomes.length - failed.length)
    })
  })
})

const CRASH_IDS = 40
const ids = (count: number) => Array.from({ length: count }, (_, index) => `c${index}`)

/** Runs ADDs and DELs in another process without pause and kills it. @returns 1 if it was at work then */
async function killAmid(network: Network, state: string, afterMs: number): Promise<number> {
  const program = `
    import { readFileSync } from 'node:fs'
    import { deadlineIn } from '#base'
    import { dispatch } from '#cni'
    import { openJournal } from '#allocator'
    import { findOwnPlugin } from '#plugins'
    const { state, add, del, config } = JSON.parse(readFileSync(0, 'utf8'))
    const world = { journal: openJournal(state), longLived: true }
    const stdin = new TextEncoder().encode(JSON.stringify(config))
    const call = (env, CNI_CONTAINERID) => dispatch(findOwnPlugin('host-local'), { env: { ...env, CNI_CONTAINERID, CNI_PATH: '/none' }, stdin },
      world, { deadline: deadlineIn(60000), signal: new AbortController().signal })
    process.stdout.write('working')
    for (let index = 0; ; index++) {
      await call(add, 'c' + (index % ${CRASH_IDS}))
      await call(del, 'c' + ((index + 20) % ${CRASH_IDS}))
    }`
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], { cwd: root })
  const ended = new Promise<string | null>(resolve => child.on('close', (_, signal) => resolve(signal)))
  let output = ''
  child.stderr.on('data', data => {
    output += data
  })
  const working = new Promise<void>((resolve, reject) => {
    child.stdout.once('data', () => resolve())
    child.on('close', () => reject(new Error(output)))
  })
  const [add, del] = [network.env('ADD', 'c'), network.env('DEL', 'c')]
  child.stdin.end(JSON.stringify({ state, add, del, config: network.config() }))
  await working
  await new Promise(resolve => setTimeout(resolve, afterMs))
  child.kill('SIGKILL')
  return (await ended) === 'SIGKILL' ? 1 : 0
}
