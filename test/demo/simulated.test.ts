// SPDX-License-Identifier: Apache-2.0
// Promise: `mooring demo` shows pods on Neutron's addresses by real packets, says by its exit code whether everything was
// as promised, and leaves the machine as it found it, however it ends. Method: the command as a user types it, under names
// of its own, with the simulated OpenStack. Needs root.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'
import { skipUnlessWhole } from '../whole-run.ts'
import { assertAsPromised, EVERY_WAY, start, traces, waysOf } from './command.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root'
const run = promisify(execFile)
/** Each takes ten seconds and all processors. */
const onlyInAll = { skip: skipUnlessWhole }

/** Where the simulated cloud of a demo listens. */
const simulatorOf = (name: string) =>
  new URL(/auth_url: (\S+)/.exec(readFileSync(`/run/${name}/simulator/clouds.yaml`, 'utf8'))![1]!).origin

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

  test('Ctrl-C while packets are sent ends it with 130 and leaves nothing', onlyInAll, async () => {
    const { child, said, ended } = start('mooring-test-stop')
    await said('sending packets')
    child.kill('SIGINT')
    const { code, stdout } = await ended
    assert.equal(code, 130, stdout)
    assert.match(stdout, /Nothing is left/)
    assert.deepEqual(traces('mooring-test-stop'), [])
  })

  test(
    'a cloud that fails ends it with the reason and 1; what was made all the same is found and deleted',
    onlyInAll,
    async () => {
      const name = 'mooring-test-fail'
      const { said, ended } = start(name)
      await said('attaching pod-1')
      // Neutron makes the floating IP, and nobody ever learns its id.
      const fault = { act: 'answer-after', status: 403, method: 'POST', path: '/floatingips' }
      const inject = await fetch(`${simulatorOf(name)}/simulator/inject`, {
        method: 'POST',
        body: JSON.stringify(fault),
      })
      assert.equal(inject.status, 204)
      const { code, stdout } = await ended
      assert.equal(code, 1, stdout)
      assert.match(stdout, /Ended early: .*floating IP.*403/)
      assert.match(stdout, /Nothing is left/)
      assert.deepEqual(traces(name), [])
    },
  )

  test('somebody who reads no further does not keep it from cleaning up', onlyInAll, async () => {
    const name = 'mooring-test-pipe'
    const { child, said } = start(name)
    const exit = once(child, 'exit')
    await said('starting an agent')
    child.stdout!.destroy()
    child.stderr!.destroy()
    assert.deepEqual(await exit, [1, null])
    assert.deepEqual(traces(name), [])
  })

  test('after kill -9 --clean takes everything away', onlyInAll, async () => {
    const name = 'mooring-test-kill'
    const { child, said, ended } = start(name)
    await said('attaching pod-2')
    child.kill('SIGKILL')
    await ended
    assert.notDeepEqual(traces(name), [])
    assert.equal((await start(name, '--clean').ended).code, 0)
    assert.deepEqual(traces(name), [])
  })

  test('a namespace of somebody else whose name begins with that of the demo is left alone', async t => {
    const name = 'mooring-test-taken'
    const other = `${name}-vm-mine`
    await run('ip', ['netns', 'add', other])
    t.after(() => run('ip', ['netns', 'delete', other]))
    const { code, stderr } = await start(name).ended
    assert.equal(code, 1)
    assert.match(stderr, /Cannot start: network namespace mooring-test-taken-vm-mine is there already/)
    assert.deepEqual(traces(name), [other])
  })

  test('a cloud that no clouds.yaml has is named, with exit code 1, and nothing is left', async () => {
    const { code, stdout } = await start('mooring-test-cloud', '--cloud', 'nowhere').ended
    assert.equal(code, 1)
    assert.match(stdout, /"nowhere"/)
    assert.deepEqual(traces('mooring-test-cloud'), [])
  })
})
