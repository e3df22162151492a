// SPDX-License-Identifier: Apache-2.0

// Goal: the node agent keeps its promises to shims, also when callers go away, when it is killed and when nobody ever
// sends DEL. Everything by the installed executables, the socket and the kernel's own tools. Needs root.

import assert from 'node:assert/strict'
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { dirname, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type Attachment,
  assertSameState,
  cniBin,
  errorOf,
  eventually,
  folder,
  makeLab,
  makeManyNetns,
  makeNetns,
  type Node,
  type RunningAgent,
  resultOf,
  root,
  run,
  scratch,
  skip,
  start,
} from './nodelab.ts'
import { isWholeRun } from './whole-run.ts'

const PATH = process.env['PATH'] ?? ''
const mode = (path: string) => statSync(path).mode & 0o777
let containers = 0
/** While the agent is killed every now and then. */
const CALLS_WITH_KILLS = isWholeRun ? 200 : 50
const KILLS_MIN = 3

/** A node whose first pods came and went, so that what stays for good is there. */
async function usedNode(): Promise<{ node: Node; agent: RunningAgent; kept: string[] }> {
  const node = makeLab({ mode: 'agent' }).nodes[0]!
  const agent = await node.startAgent({ reconcile: 1 })
  const first = newPod()
  resultOf(await node.call('ADD', first))
  resultOf(await node.call('DEL', first))
  return { node, agent, kept: node.state() }
}

const newPod = (): Attachment => ({ containerId: `c${containers++}`, netns: makeNetns('pod').path })
const newPods = (wanted: number): Attachment[] =>
  makeManyNetns('pod', wanted).map(netns => ({ containerId: `c${containers++}`, netns }))

/** An IPAM that takes its time, and writes down how it is called. */
function slowIpam(seconds: number) {
  const directory = folder('slow')
  const log = join(directory, 'calls')
  const answer = JSON.stringify({ cniVersion: '1.0.0', ips: [{ address: '10.10.10.77/24' }] })
  const add = `ADD) sleep ${seconds}; echo '${answer}';;`
  writeFileSync(
    join(directory, 'slow-ipam'),
    `#!/bin/sh\necho $CNI_COMMAND >> ${log}\ncase $CNI_COMMAND in ${add} esac\n`,
    {
      mode: 0o755,
    },
  )
  return {
    options: { more: { ipam: { type: 'slow-ipam' } }, env: { CNI_PATH: `${directory}:${cniBin()}` } },
    calls: () => (existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : []),
  }
}

// Most of the time is waiting: for the shim's 20 s in the second of the two.
describe('agent', { skip, concurrency: 2 }, () => {
  describe('one after the other', { concurrency: 1 }, () => {
    describe('its socket', { concurrency: 1 }, () => {
      let node: Node
      let agent: RunningAgent
      before(async () => {
        ;({ node, agent } = await usedNode())
      })
      after(() => agent[Symbol.asyncDispose]())
      const status: Attachment = { containerId: '', netns: '' }
      const assertServes = async () => resultOf(await node.call('STATUS', status, { more: { cniVersion: '1.1.0' } }))

      /** Sends bytes and waits until the agent ends the connection. @returns what it answered */
      const exchange = (bytes: Uint8Array, { end = false } = {}) =>
        new Promise<string>((resolve, reject) => {
          const socket = connect(node.socket, () => (end ? socket.end(bytes) : socket.write(bytes)))
          let answer = ''
          socket.on('data', data => {
            answer += data.toString('latin1')
          })
          socket.on('error', error =>
            'code' in error && error.code === 'ECONNRESET' ? resolve(answer) : reject(error),
          )
          socket.on('close', () => resolve(answer))
        })

      test('socket, its directory, the data directory and the journal are for root alone', () => {
        assert.equal(mode(node.socket), 0o600)
        assert.equal(mode(dirname(node.socket)), 0o700)
        assert.equal(mode(node.dataDir), 0o700)
        assert.equal(mode(join(node.dataDir, 'agent.lock')), 0o600)
      })

      test('another user is refused, even where the socket would let him', async () => {
        const way = [scratch, dirname(dirname(node.socket)), dirname(node.socket)]
        for (const directory of way) chmodSync(directory, 0o711)
        chmodSync(node.socket, 0o666)
        const socat = ['socat', '-t2', '-', `UNIX-CONNECT:${node.socket}`]
        const nobody = ['/usr/bin/setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', ...socat]
        const { stdout } = await start(nobody, { env: { PATH: process.env['PATH'] ?? '' }, stdin: requestOf('STATUS') })
          .outcome
        for (const directory of way) chmodSync(directory, 0o700)
        chmodSync(node.socket, 0o600)
        assert.equal(stdout, '')
        assert.ok(agent.log.some(line => line.includes('Cannot serve user 65534')))
        await assertServes()
      })

      test('a request beyond the limit is dropped, one of 1 MiB is error 6 at the shim', async () => {
        const huge = new Uint8Array(8)
        new DataView(huge.buffer).setUint32(0, 0x7fff_ffff, true)
        assert.equal(await exchange(huge), '')
        const stdin = `{"name": "podnet", "padding": "${'x'.repeat(1 << 20)}"}`
        const error = errorOf(await node.call('ADD', { ...newPod(), config: stdin }, { stdin }))
        assert.deepEqual([error.code, error.msg], [6, 'Cannot read the network configuration: it has more than 1 MiB'])
        await assertServes()
      })

      test('nonsense, and a connection that is cut in the middle of a request, harm nobody', async () => {
        for (const length of [0, 3, 4, 12]) {
          const bytes = new Uint8Array(4 + length)
          new DataView(bytes.buffer).setUint32(0, length, true)
          assert.equal(await exchange(bytes), '', `frame of ${length} zeros`)
        }
        const request = requestOf('STATUS')
        for (const cut of [1, 4, 20, request.length - 1])
          assert.equal(await exchange(request.subarray(0, cut), { end: true }), '', `cut after ${cut}`)
        await assertServes()
      })

      test('a caller that says nothing is sent away after five seconds', async () => {
        const begin = performance.now()
        assert.equal(await exchange(new Uint8Array(2)), '')
        const ms = performance.now() - begin
        assert.ok(ms > 4_500 && ms < 8_000, `${ms} ms`)
      })

      /** What a shim would send (shim/shim.c). */
      function requestOf(command: string): Uint8Array {
        const text = (value: string) => {
          const bytes = Buffer.from(value)
          const length = Buffer.alloc(4)
          length.writeUInt32LE(bytes.length)
          return Buffer.concat([length, bytes])
        }
        const body = Buffer.concat([
          Buffer.from('ffffffff', 'hex'),
          text('veth-route'),
          text(`CNI_COMMAND=${command}\0`),
          text(JSON.stringify(node.config({ cniVersion: '1.1.0' }))),
        ])
        const length = Buffer.alloc(4)
        length.writeUInt32LE(body.length)
        return Buffer.concat([length, body])
      }
    })

    describe('callers that go away', { concurrency: 1 }, () => {
      let node: Node
      let agent: RunningAgent
      let kept: string[]
      before(async () => {
        ;({ node, agent, kept } = await usedNode())
      })
      after(() => agent[Symbol.asyncDispose]())

      test('a killed shim takes its ADD back', async () => {
        const ipam = slowIpam(0.5)
        const it = newPod()
        const shim = node.start('ADD', it, ipam.options)
        await eventually('the IPAM is asked', () => ipam.calls().length === 1)
        shim.child.kill('SIGKILL')
        await eventually(
          'the ADD is taken back',
          () => ipam.calls().at(-1) === 'DEL' && node.state().length === kept.length,
        )
        assertSameState(node.state(), kept)
      })

      test('DEL during ADD of the same container waits for it, and leaves nothing', async () => {
        const ipam = slowIpam(0.4)
        const it = newPod()
        const add = node.start('ADD', it, ipam.options)
        await eventually('the IPAM is asked', () => ipam.calls().length === 1)
        const [added, deleted] = await Promise.all([add.outcome, node.call('DEL', it, ipam.options)])
        assert.deepEqual([added.code, deleted.code], [0, 0])
        assertSameState(node.state(), kept)
      })

      test('a slow ADD does not keep another container waiting', async () => {
        const ipam = slowIpam(1)
        const [slow, quick] = [newPod(), newPod()]
        const add = node.start('ADD', slow, ipam.options)
        await eventually('the IPAM is asked', () => ipam.calls().length === 1)
        assert.ok((await node.call('ADD', quick)).ms < 800)
        resultOf(await add.outcome)
        resultOf(await node.call('DEL', quick))
        resultOf(await node.call('DEL', slow, ipam.options))
        assertSameState(node.state(), kept)
      })

      test('SIGTERM ends the agent after what is under way, and the pods stay', async () => {
        const ipam = slowIpam(0.5)
        const it = newPod()
        const add = node.start('ADD', it, ipam.options)
        await eventually('the IPAM is asked', () => ipam.calls().length === 1)
        const { code } = await agent.kill('SIGTERM')
        assert.equal(code, 0)
        const result = resultOf(await add.outcome)
        assert.equal(existsSync(node.socket), false)
        agent = await node.startAgent({ reconcile: 1 })
        const check = { ...ipam.options, more: { ...ipam.options.more, prevResult: result } }
        resultOf(await node.call('CHECK', it, check))
        resultOf(await node.call('DEL', it, ipam.options))
        assertSameState(node.state(), kept)
      })

      test('a killed agent: its half ADD is undone by the next one, without any DEL', async () => {
        const ipam = slowIpam(0.5)
        const it = newPod()
        const add = node.start('ADD', it, ipam.options)
        await eventually('the IPAM is asked', () => ipam.calls().length === 1)
        await agent.kill('SIGKILL')
        const error = errorOf(await add.outcome)
        assert.deepEqual([error.code, error.msg], [11, 'Cannot finish: the agent went away'])
        agent = await node.startAgent({ reconcile: 1 })
        await eventually('the ADD is undone', () => ipam.calls().at(-1) === 'DEL' && node.state().length <= kept.length)
        assertSameState(node.state(), kept)
      })

      test('a rule set that somebody flushed is made again without any call', async () => {
        const it = newPod()
        const more = { ipMasq: true }
        const prevResult = resultOf(await node.call('ADD', it, { more }))
        node.run('nft', 'flush', 'ruleset')
        const link = prevResult.interfaces[0].name
        await eventually(
          'its elements are back',
          () => node.state().filter(line => line.includes(`"${link}"`)).length >= 4,
        )
        resultOf(await node.call('CHECK', it, { more: { ...more, prevResult } }))
        resultOf(await node.call('DEL', it, { more }))
        kept = node.state()
      })

      test('its warm-up leaves nothing, and calls are served meanwhile', async () => {
        const fresh = makeLab({ mode: 'agent' }).nodes[0]!
        await using _agent = await fresh.startAgent({ warmUp: true })
        const pods = [newPod(), newPod(), newPod()]
        for (const it of pods) resultOf(await fresh.call('ADD', it))
        await sleep(1_000)
        for (const it of pods) resultOf(await fresh.call('DEL', it))
        const warmed = fresh.state()
        const another = makeLab({ mode: 'agent' }).nodes[0]!
        await using _other = await another.startAgent()
        const it = newPod()
        resultOf(await another.call('ADD', it))
        resultOf(await another.call('DEL', it))
        assert.equal(warmed.length, another.state().length, warmed.join('\n'))
      })

      test('a second agent on the same data directory is refused', async () => {
        const command = [join(root, 'mooring'), 'agent', '--netns', node.path, '--data-dir', node.dataDir]
        const socket = join(folder('second'), 'sock')
        const { code, stderr } = await start([...command, '--socket', socket], { env: { PATH } }).outcome
        assert.equal(code, 1)
        assert.match(
          stderr,
          /Cannot start the agent: an agent has .*\. Stop it, or name another directory with --data-dir/,
        )
        const it = newPod()
        resultOf(await node.call('ADD', it))
        resultOf(await node.call('DEL', it))
      })

      for (const [log, redirection] of [
        ['a full disk', '/dev/full'],
        ['a reader that has gone', '&1'],
      ])
        test(`its log goes to ${log}: it serves all the same, and ends`, async () => {
          const fresh = makeLab({ mode: 'agent' }).nodes[0]!
          const paths = ['--socket', fresh.socket, '--data-dir', fresh.dataDir]
          const command = [join(root, 'mooring'), 'agent', '--netns', fresh.path, ...paths]
          const { child, outcome } = start(['sh', '-c', `exec "$@" 2>${redirection}`, 'sh', ...command], {
            env: { PATH },
          })
          child.stdout!.destroy()
          const it = newPod()
          for (let round = 0; round < 2; round++) {
            resultOf(await fresh.call('ADD', it, { timeoutMs: 20_000 }))
            // A failure is a warning, which is written at once.
            assert.equal(errorOf(await fresh.call('ADD', it, { timeoutMs: 20_000 })).code, 104)
            resultOf(await fresh.call('DEL', it, { timeoutMs: 20_000 }))
          }
          child.kill('SIGTERM')
          assert.equal((await outcome).code, 0)
        })

      test('a second agent on the same socket is refused, also while the first does not answer', async () => {
        const command = [join(root, 'mooring'), 'agent', '--netns', node.path, '--socket', node.socket]
        const second = () => start([...command, '--data-dir', folder('second')], { env: { PATH } }).outcome
        const refused =
          /Cannot start the agent: cannot listen on ".*": another process listens there, mostly an agent, to be stopped first\. Name another path with --socket/
        for (const signal of ['SIGCONT', 'SIGSTOP'] as const) {
          process.kill(agent.pid, signal)
          const { code, stderr } = await second()
          process.kill(agent.pid, 'SIGCONT')
          assert.equal(code, 1)
          assert.match(stderr, refused)
        }
        const it = newPod()
        resultOf(await node.call('ADD', it))
        resultOf(await node.call('DEL', it))
      })

      test('a socket path that has something else is refused, and that stays', async () => {
        const file = join(folder('taken'), 'file')
        writeFileSync(file, 'precious')
        for (const [path, reason] of [
          [file, /: it is no socket\. Name another path with --socket/],
          [dirname(file), /: it is no socket\. /],
          ['/proc/agent.sock', /: listen E\w+: .*\. Name another path with --socket/],
          [`/${'x'.repeat(107)}`, /: it has 108 bytes, and a socket's path 107 at most\. /],
        ] as const) {
          const command = [join(root, 'mooring'), 'agent', '--netns', node.path, '--socket', path]
          const { code, stderr } = await start([...command, '--data-dir', folder('data')], { env: { PATH } }).outcome
          assert.equal(code, 1)
          assert.match(stderr, /^mooring: Cannot start the agent: cannot listen on "/)
          assert.match(stderr, reason)
        }
        assert.equal(readFileSync(file, 'utf8'), 'precious')
      })

      test('a data directory that cannot be used is named, with the reason', async () => {
        const file = join(folder('taken'), 'file')
        writeFileSync(file, '')
        const command = [join(root, 'mooring'), 'agent', '--netns', node.path, '--socket', join(folder('s'), 'sock')]
        for (const dataDir of [file, '/proc/nothing']) {
          const { code, stderr } = await start([...command, '--data-dir', dataDir], { env: { PATH } }).outcome
          assert.equal(code, 1)
          assert.match(stderr, /^mooring: Cannot start the agent: cannot use the data directory "\/.*": E\w+: /)
          assert.match(stderr, /\. Name another one with --data-dir$/m)
        }
      })

      test('a namespace that is gone without DEL is released after two looks, not after one', async () => {
        const it = newPod()
        resultOf(await node.call('ADD', it))
        await sleep(5_100) // younger ones are not judged
        run('ip', ['netns', 'del', it.netns.split('/').at(-1)!])
        const begin = performance.now()
        await eventually('the attachment is released', () => !node.state().some(line => line.includes('attachment')))
        assert.ok(performance.now() - begin > 900, 'two rounds are a second apart')
        const tells = (line: string) => line.includes('"why":"its namespace is gone"') && line.includes(it.containerId)
        await eventually('the log tells why', () => agent.log.some(tells))
        assertSameState(node.state(), kept)
      })
    })

    describe('200 attachments and kill -9', { concurrency: 1 }, () => {
      test('it stays below 120 MiB with 200 pods', async () => {
        const { node, agent, kept } = await usedNode()
        const pods = newPods(200)
        const ipam = {
          type: 'host-local',
          dataDir: node.leases,
          ranges: [[{ subnet: '10.30.0.0/16' }]],
          routes: [{ dst: '0.0.0.0/0' }],
        }
        const addresses = new Set<string>()
        await inParallel(
          pods,
          async it => void addresses.add(resultOf(await node.call('ADD', it, { more: { ipam } })).ips[0].address),
        )
        assert.equal(addresses.size, 200)
        const { VmRSS } = Object.fromEntries(
          readFileSync(`/proc/${agent.pid}/status`, 'utf8')
            .split('\n')
            .map(line => line.split(/:\s+/, 2)),
        ) as { VmRSS: string }
        assert.ok(Number.parseInt(VmRSS, 10) < 120 * 1024, VmRSS)
        await inParallel(pods, async it => resultOf(await node.call('DEL', it, { more: { ipam } })))
        assertSameState(node.state(), kept)
        await agent[Symbol.asyncDispose]()
      })

      test(`kill -9 at random times during ${CALLS_WITH_KILLS} ADD and DEL: nothing left, nothing doubled, running pods intact`, async () => {
        const used = await usedNode()
        const { node, kept } = used
        let agent = used.agent
        const residents = [newPod(), newPod(), newPod()]
        const results = await Promise.all(residents.map(async it => resultOf(await node.call('ADD', it))))
        const namespaces = newPods(16)
        const holders = new Map<string, string>()
        let [done, failed, kills] = [0, 0, 0]
        let killing = true
        const worker = async ({ netns }: Attachment) => {
          while (done < CALLS_WITH_KILLS || (killing && kills < KILLS_MIN)) {
            done++
            const it = { containerId: `k${containers++}`, netns }
            const added = await node.call('ADD', it)
            if (added.code === 0) {
              const { address } = JSON.parse(added.stdout).ips[0]
              assert.equal(holders.get(address), undefined, `${address} is held by two`)
              holders.set(address, it.containerId)
              holders.delete(address)
            } else {
              failed++
              assert.equal(errorOf(added).code, 11, added.stdout)
            }
            // As a runtime does it after a failure, too.
            resultOf(await node.call('DEL', it))
          }
        }
        const work = Promise.all(namespaces.map(worker))
        let working = true
        void work.finally(() => {
          working = false
        })
        try {
          while (working && kills < 12) {
            await sleep(30 + Math.random() * 250)
            await agent.kill('SIGKILL')
            kills++
            agent = await node.startAgent({ reconcile: 1 })
          }
        } finally {
          killing = false
        }
        await work
        console.log(`    ${kills} kills, ${failed} of ${done} ADDs failed with error 11`)
        assert.ok(kills >= KILLS_MIN, `${kills} kills`)
        await eventually(
          'all is undone',
          () => node.state().filter(line => / "?k\d+|"k\d+"/.test(line)).length === 0,
          20_000,
        )
        for (const [index, it] of residents.entries()) {
          resultOf(await node.call('CHECK', it, { more: { prevResult: results[index] } }))
          resultOf(await node.call('DEL', it))
        }
        assertSameState(node.state(), kept)
        await agent[Symbol.asyncDispose]()
      })
    })
  })

  describe('down, and started again', { concurrency: 1 }, () => {
    let node: Node
    let agent: RunningAgent
    let kept: string[]
    before(async () => {
      ;({ node, agent, kept } = await usedNode())
    })
    after(() => agent[Symbol.asyncDispose]())

    test('ADD waits for the agent and gives up with error 11; DEL is promised; STATUS says 50 at once (ROB-01, STA-06)', async () => {
      const [living, doomed] = [newPod(), newPod()]
      const result = resultOf(await node.call('ADD', living))
      resultOf(await node.call('ADD', doomed))
      await agent.kill('SIGTERM')
      const waiting = node.call('ADD', newPod())

      const status = await node.call('STATUS', { containerId: '', netns: '' }, { more: { cniVersion: '1.1.0' } })
      assert.equal(errorOf(status).code, 50)
      assert.ok(status.ms < 1_000, `${status.ms} ms`)
      const version = await node.call('VERSION', { containerId: '', netns: '' })
      assert.deepEqual([version.code, version.ms < 1_000], [0, true])

      const deleted = await node.call('DEL', doomed)
      assert.deepEqual([deleted.code, deleted.stdout], [0, ''])
      const spool = join(node.dataDir, 'spool')
      const [entry, ...more] = readdirSync(spool)
      assert.deepEqual([more, mode(join(spool, entry!)), mode(spool)], [[], 0o600, 0o700])

      const refused = await waiting
      assert.deepEqual([errorOf(refused).code, errorOf(refused).msg], [11, 'Cannot reach the agent'])
      assert.match(
        errorOf(refused).details ?? '',
        new RegExp(`^start it: mooring agent. Its socket ${node.socket}: \\w`),
      )
      assert.ok(refused.ms > 19_000 && refused.ms < 25_000, `${refused.ms} ms`)

      writeFileSync(join(spool, '1-1'), 'nonsense')
      agent = await node.startAgent({ reconcile: 1 })
      assert.deepEqual(readdirSync(spool), ['1-1.bad'])
      assert.ok(!node.state().some(line => new RegExp(`[ "]${doomed.containerId}[ "]`).test(line)))
      resultOf(await node.call('CHECK', living, { more: { prevResult: result } }))
      resultOf(await node.call('DEL', living))
      run('rm', [join(spool, '1-1.bad')])
      assertSameState(node.state(), kept)
    })

    test('a DEL that was promised while the agent started is done before the next ADD of its container, not after it', async () => {
      const it = newPod()
      resultOf(await node.call('ADD', it))
      // As a shim that found nobody listening, and wrote when the agent had just looked.
      const missed = { env: { MOORING_SOCKET: join(folder('nobody'), 'sock') } }
      resultOf(await node.call('DEL', it, missed))
      const again = { ...it, netns: newPod().netns }
      const prevResult = resultOf(await node.call('ADD', again))
      await sleep(2_100) // two rounds
      resultOf(await node.call('CHECK', again, { more: { prevResult } }))
      resultOf(await node.call('DEL', again))
      assertSameState(node.state(), kept)
    })

    test('STATUS does not wait long for an agent that hangs, and a DEL is promised once it is gone', async () => {
      const it = newPod()
      resultOf(await node.call('ADD', it))
      process.kill(agent.pid, 'SIGSTOP')
      const asked = node.call('STATUS', { containerId: '', netns: '' }, { more: { cniVersion: '1.1.0' } })
      const deleting = node.start('DEL', it)
      const status = await asked
      assert.deepEqual([errorOf(status).code, errorOf(status).msg], [50, 'Cannot serve: the agent does not answer'])
      assert.ok(status.ms < 15_000, `${status.ms} ms`)
      await agent.kill('SIGKILL')
      resultOf(await deleting.outcome)
      agent = await node.startAgent({ reconcile: 1 })
      assertSameState(node.state(), kept)
    })

    test('ADD goes through once the agent has come', async () => {
      await agent.kill('SIGTERM')
      const it = newPod()
      const add = node.call('ADD', it)
      await sleep(300)
      agent = await node.startAgent({ reconcile: 1 })
      resultOf(await add)
      resultOf(await node.call('DEL', it))
      assertSameState(node.state(), kept)
    })

    test('after a reboot everything of before is released at the start, without any DEL', async () => {
      const pods = [newPod(), newPod(), newPod()]
      for (const it of pods) resultOf(await node.call('ADD', it, { more: { ipMasq: true } }))
      await agent.kill('SIGKILL')
      for (const { netns } of pods) run('ip', ['netns', 'del', netns.split('/').at(-1)!])
      agent = await node.startAgent({ reconcile: 1, env: { MOORING_BOOT_ID: 'another-boot' } })
      const left = node
        .state()
        .filter(line => /attachment|reservation|leases|10\.10\.10\.\d\d .*proxy|elements/.test(line))
      assert.deepEqual(left, [])
      await agent.kill('SIGTERM')
      agent = await node.startAgent({ reconcile: 1 })
    })
  })
})

/** At most 16 at once: more would measure this machine. */
async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<void> {
  const queue = [...items]
  await Promise.all(
    Array.from({ length: 16 }, async () => {
      for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item)
    }),
  )
}
