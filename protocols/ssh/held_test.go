package ssh

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

// queue is a queue of one request.
type queue struct {
	mu        sync.Mutex
	a         core.Approval
	changed   chan struct{}
	asked     chan struct{}
	withdrawn chan struct{}
}

func newQueue() *queue {
	return &queue{changed: make(chan struct{}, 1), asked: make(chan struct{}, 10), withdrawn: make(chan struct{}, 10)}
}

func (q *queue) Ask(_ context.Context, a core.Approval) (core.Approval, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	a.ID, a.State = "one", core.ApprovalWaiting
	q.a = a
	q.asked <- struct{}{}
	return a, nil
}

func (q *queue) Get(string) (core.Approval, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.a, true
}

func (q *queue) Watch(string) (<-chan struct{}, func()) { return q.changed, func() {} }

func (q *queue) Use(_ context.Context, _, digest string) (core.Approval, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.a.State != core.ApprovalApproved || q.a.Digest != digest {
		return core.Approval{}, core.ErrNoApproval
	}
	return q.a, nil
}

func (q *queue) Withdraw(context.Context, string) { q.withdrawn <- struct{}{} }

func (q *queue) approve() {
	q.mu.Lock()
	q.a.State = core.ApprovalApproved
	for i := range q.a.Holds {
		q.a.Holds[i].Approved = &core.Word{Subject: "dana", Time: time.Now()}
	}
	q.mu.Unlock()
	q.changed <- struct{}{}
}

// holds is a chain that holds what has a text in it.
type holds string

func (h holds) Inspect(_ context.Context, e *core.Event) (v core.Verdict, _ error) {
	if e.Kind == core.KindCommand && strings.Contains(e.Command().Text, string(h)) {
		v.Hold = &core.Hold{Rule: "risky", Approvers: []string{"dba"}}
	}
	return v, nil
}

// TestHeld: a command waits for its approval without keeping the connection's other channels, and is not run for who has gone.
func TestHeld(t *testing.T) {
	for name, leave := range map[string]bool{"approved": false, "its client leaves": true} {
		t.Run(name, func(t *testing.T) {
			q := newQueue()
			path := t.TempDir() + "/ran"
			g := startGate(t, withChain(holds(path)), func(g *testGate) {
				g.approvals = q
				g.target.Hold = core.Holding{Mode: core.HoldWait, Wait: time.Minute}
			})
			c := g.client()
			s, err := c.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			var stderr strings.Builder
			s.Stderr = &stderr
			ran := make(chan error, 1)
			go func() { ran <- s.Run("touch " + path) }()
			<-q.asked
			if out, _, err := g.run(c, "echo meanwhile", ""); out != "meanwhile\n" || err != nil {
				t.Error(out, err)
			}
			if _, err := os.Stat(path); err == nil {
				t.Error("it ran before it was approved")
			}
			if leave {
				_ = s.Close()
				select {
				case <-q.withdrawn:
				case <-time.After(30 * time.Second):
					t.Error("its request stays")
				}
				_, _, _ = g.run(c, "true", "")
			} else {
				q.approve()
				if err := <-ran; err != nil || !strings.Contains(stderr.String(), "waiting for approval one of dba") {
					t.Errorf("%v %q", err, stderr.String())
				}
			}
			if _, err := os.Stat(path); (err != nil) != leave {
				t.Error("the file:", err)
			}
		})
	}
}

// TestHeldTransfer: one request of sftp waits, and runs once it is approved.
func TestHeldTransfer(t *testing.T) {
	q := newQueue()
	path := t.TempDir() + "/f"
	g := startGate(t, withChain(holds("mkdir "+path)), func(g *testGate) {
		g.approvals = q
		g.target.Hold = core.Holding{Mode: core.HoldWait, Wait: time.Minute}
	})
	ch, requests, err := g.client().OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	if ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(textPayload{"sftp"})); !ok || err != nil {
		t.Fatal(ok, err)
	}
	send := func(p []byte) {
		t.Helper()
		if _, err := ch.Write(appendString(nil, string(p))); err != nil {
			t.Fatal(err)
		}
	}
	send([]byte{fxInit, 0, 0, 0, 3})
	send(append(appendString([]byte{fxMkdir, 0, 0, 0, 7}, path), 0, 0, 0, 0))
	<-q.asked
	if _, err := os.Stat(path); err == nil {
		t.Error("it was made before that was approved")
	}
	q.approve()
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			break
		}
		if time.Now().After(until) {
			t.Fatal("it was not made")
		}
	}
}
