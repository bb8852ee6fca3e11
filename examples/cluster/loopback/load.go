package loopback

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Load is clients that come again when they are thrown out, each with an account of what it saw.
type Load struct {
	Run string // begins each name and each mark

	mu       sync.Mutex
	seen     []Seen
	Answers  atomic.Int64
	Sessions atomic.Int64
	Refused  atomic.Int64 // denied by a policy
	Turned   atomic.Int64 // turned away by a gateway that could not take them or not go on
	byOne    []atomic.Int64
	answers  []atomic.Int64

	stop context.CancelFunc
	wg   sync.WaitGroup
}

// Begin starts n clients. Each goes to a gateway that takes it, says so many statements at most, and comes again.
func (c *Cluster) Begin(n int, run string) *Load {
	ctx, stop := context.WithCancel(context.Background())
	l := &Load{Run: run, stop: stop, byOne: make([]atomic.Int64, len(c.Listen)), answers: make([]atomic.Int64, len(c.Listen))}
	for i := range n {
		l.wg.Go(func() { l.loop(ctx, c, i) })
	}
	return l
}

func (l *Load) loop(ctx context.Context, c *Cluster, i int) {
	at := i
	for session := 0; ctx.Err() == nil; session++ {
		name := fmt.Sprintf("%s-%d-%d", l.Run, i, session)
		at++
		listen, bounded := c.Listen, c.Bounded > 0 && i%c.Bounded == c.Bounded-1
		if bounded {
			listen = c.Loose
		}
		client, err := Dial(listen[at%len(listen)], c.Token, name, bounded)
		if err != nil {
			l.Turned.Add(1)
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
			continue
		}
		l.Sessions.Add(1)
		l.byOne[at%len(c.Listen)].Add(1)
		l.talk(ctx, client, &l.answers[at%len(c.Listen)], 1+rand.IntN(400))
		if client.Window != nil {
			client.Window.prune()
		}
		l.mu.Lock()
		l.seen = append(l.seen, client.Seen)
		l.mu.Unlock()
	}
}

// talk says statements until the gateway is gone, or it has said enough. Some clients leave without a word.
func (l *Load) talk(ctx context.Context, c *Client, count *atomic.Int64, most int) {
	defer c.Close()
	for n := 0; n < most && ctx.Err() == nil; n++ {
		mark := fmt.Sprintf("/*mark:%s.%d*/", c.Name, n)
		if c.Window != nil {
			c.Window.asked(n)
		}
		var refused *Refusal
		var err error
		answers := int64(1)
		switch n % 9 {
		case 0:
			_, err = c.Query(mark + " select * from wide order by id limit " + strconv.Itoa(1+n*37%400))
		case 1:
			_, err = c.Extended(mark+" select id, email from customers where id = $1", strconv.Itoa(1+n%2))
		case 2:
			if refused, err = c.Query(mark + " drop table customers"); refused != nil && refused.Code == "42501" {
				l.denied(c, mark)
			}
		case 3:
			_, err = c.Extended(mark+" insert into written values ($1)", fmt.Sprint(c.Name, ".", n))
		case 4:
			_, err = c.Query("begin; " + mark + " select count(*) from written where marker = 'x'; commit")
		case 5:
			_, err = c.Query(mark + " select nosuch from customers")
		case 6:
			answers, err = l.pipeline(c, n)
		default:
			_, err = c.Query(mark + " select email, name from customers order by id")
		}
		if err != nil {
			l.Turned.Add(1)
			return
		}
		l.Answers.Add(answers)
		count.Add(answers)
	}
	if rand.IntN(4) > 0 {
		c.Bye()
	}
}

// pipeline asks for many things at once. One of them is refused, in its turn.
func (l *Load) pipeline(c *Client, n int) (answers int64, err error) {
	var all []string
	for k := range 16 {
		mark := fmt.Sprintf("/*mark:%s.%d.%d*/", c.Name, n, k)
		if k == 7 {
			all = append(all, mark+" drop table customers")
			continue
		}
		all = append(all, fmt.Sprintf("%s select id, name, email from customers where id <> %d", mark, k))
	}
	refused, err := c.Pipeline(all...)
	for k, r := range refused {
		switch denied := r != nil && r.Code == "42501"; {
		case denied && k == 7:
			l.denied(c, fmt.Sprintf("/*mark:%s.%d.%d*/", c.Name, n, k))
		case denied || k == 7 && r == nil:
			return 0, fmt.Errorf("of %d statements at once the wrong one was refused: %d: %v", len(all), k, r)
		}
	}
	return int64(len(refused)), err
}

// denied takes note that a policy refused what has this mark.
func (l *Load) denied(c *Client, mark string) {
	l.Refused.Add(1)
	c.Denied = append(c.Denied, marker.FindStringSubmatch(mark)[1])
}

// By is how many sessions a gateway has taken.
func (l *Load) By(gateway int) int64 { return l.byOne[gateway].Load() }

// AnswersBy is how many answers a gateway has given.
func (l *Load) AnswersBy(gateway int) int64 { return l.answers[gateway].Load() }

// End stops the clients and returns their accounts.
func (l *Load) End() []Seen {
	l.stop()
	l.wg.Wait()
	return l.seen
}
